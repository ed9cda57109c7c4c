#!/usr/bin/env bash
# Asks a real server everything that its OpenAPI document allows, and much that it doesn't:
# schemathesis, all checks, in a short form. MORE=50 asks for longer.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
version=4.32.5
tool=$target/schemathesis/bin/schemathesis

if ! "$tool" --version 2>/dev/null | grep -qF "$version"; then
    if ! { python3 -m venv "$target/schemathesis" && "$target/schemathesis/bin/pip" install -q "schemathesis==$version"; }; then
        echo "test-api: !!! schemathesis $version could not be installed (python3 with venv, and PyPI, are needed)" >&2
        echo "test-api: !!! THE API IS NOT TESTED AGAINST ITS DOCUMENT" >&2
        # In continuous integration that is a failure; on a machine without a network it is told.
        [ -z "${CI:-}" ] || exit 1
        exit 0
    fi
fi

folder=$(mktemp -d)
chmod 755 "$folder"
server=
stop() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    rm -rf "$folder"
}
trap stop EXIT
cp -r examples-repo "$folder/repository"
git -C "$folder/repository" init -q -b main
git -C "$folder/repository" add -A
git -C "$folder/repository" -c user.name=test -c user.email=test@example.com commit -qm "feat: the examples"
"$target/debug/picloud" up "$folder/repository" --listen 127.0.0.1:0 --data-dir "$folder/data" \
    --ready-file "$folder/ready.json" >"$folder/log" 2>&1 &
server=$!
for _ in $(seq 600); do
    [ ! -e "$folder/ready.json" ] || break
    kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.1
done
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$folder/ready.json" "$1"; }
url=$(field url)
key=$(tr -d '[:space:]' <"$(field admin_token_file)")

# It keeps notes where it runs.
cd "$folder"
# The stream of events has no end; the key and the sources that the run itself needs stay.
"$tool" --config-file "$root/scripts/schemathesis.toml" run "$url/api/v1/openapi.json" \
    --header "Authorization: Bearer $key" --checks all --max-examples "${MORE:-3}" --seed 1 --workers 1 \
    --exclude-operation-id streamEvents --exclude-operation-id revokeKey --exclude-operation-id deleteSource \
    --request-timeout 20 --no-color >"$folder/report" 2>&1 ||
    { cat "$folder/report" >&2; tail -50 "$folder/log" >&2; exit 1; }
tail -4 "$folder/report"
