#!/usr/bin/env bash
# Writes .sqlx anew: what the compiler needs to check each query without a database. Starts a
# scratch PostgreSQL, applies the migrations to it, and lets the macros describe every query.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null | tail -1 || command -v postgres)")
scratch=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then
    chown postgres "$scratch"
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
chmod 755 "$scratch"
trap '(cd / && "${as[@]}" "$bin/pg_ctl" -D "$scratch/data" -m immediate stop >/dev/null 2>&1) || true; rm -rf "$scratch"' EXIT
(cd / && "${as[@]}" "$bin/initdb" -D "$scratch/data" -U postgres -A trust --no-instructions >/dev/null)
(cd / && "${as[@]}" "$bin/pg_ctl" -D "$scratch/data" -o "-c listen_addresses= -k $scratch -c fsync=off -c unix_socket_permissions=0777" -l "$scratch/log" -w start >/dev/null)
for file in migrations/*.sql; do
    "$bin/psql" -q -h "$scratch" -U postgres -v ON_ERROR_STOP=1 -f "$file"
done
rm -rf .sqlx && mkdir .sqlx
touch crates/store/src/lib.rs
encoded=$(printf '%s' "$scratch" | sed 's,/,%2F,g')
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$PWD/.sqlx" DATABASE_URL="postgres://postgres@localhost/postgres?host=$encoded" \
    cargo check --workspace --lib --quiet
echo "sqlx-prepare: $(find .sqlx -name '*.json' | wc -l) queries"
