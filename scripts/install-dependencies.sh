#!/usr/bin/env bash
# Installs what building, testing and running PiCloud needs and this machine lacks. Silent and
# quick where nothing is missing. `--bench` adds what the benchmark needs, `--test` what the tests
# need: a browser, and Caddy.
set -euo pipefail

say() { printf 'install-dependencies: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

have_postgres() {
    have postgres && have initdb && return 0
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ||
        compgen -G '/opt/homebrew/opt/postgresql@*/bin/postgres' >/dev/null ||
        compgen -G '/usr/local/opt/postgresql@*/bin/postgres' >/dev/null
}

needed=()
for tool in cargo cc git make; do
    have "$tool" || needed+=("$tool")
done
if [ ${#needed[@]} -gt 0 ]; then
    say "needed and not here: ${needed[*]}"
    say "Rust comes from rustup; a C compiler, git and make from the system's packages (Debian, Ubuntu: build-essential git)"
    exit 1
fi

packages=()
have_postgres || packages+=(postgresql)
have curl || packages+=(curl)
# The dashboard is built with Node.js 20; without it the program is built all the same.
offered=$(apt-cache policy nodejs 2>/dev/null | sed -n 's/.*Candidate: \([0-9]*\).*/\1/p' || true)
have npm || [ "${offered:-0}" -lt 20 ] || packages+=(nodejs npm)
if [ "${1:-}" = --bench ]; then
    have wrk || packages+=(wrk)
fi
if [ "${1:-}" = --test ]; then
    # For schemathesis, which asks the API everything that its document allows.
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
    have chromium || have chromium-browser || have google-chrome || packages+=(chromium)
fi
# Only where it comes with the system's packages.
if [ "${1:-}" = --test ] && have apt-cache && ! have caddy; then
    if [ -n "$(apt-cache search --names-only '^caddy$')" ]; then
        packages+=(caddy)
    fi
fi
[ ${#packages[@]} -gt 0 ] || exit 0

if ! have apt-get; then
    say "install these and try again: ${packages[*]} (macOS: brew install ${packages[*]})"
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    have sudo || { say "as root: apt-get install ${packages[*]}"; exit 1; }
    as_root=(sudo)
fi
say "installing by apt-get: ${packages[*]}"
# The server's programs are wanted, not a cluster that runs beside ours.
if [[ " ${packages[*]} " == *" postgresql "* ]]; then
    "${as_root[@]}" mkdir -p /etc/postgresql-common
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        echo "create_main_cluster = false" | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
# Tests run a Caddy of their own; the package would start another.
if [[ " ${packages[*]} " == *" caddy "* ]] && have systemctl; then
    "${as_root[@]}" systemctl mask --quiet caddy.service 2>/dev/null || true
fi
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
