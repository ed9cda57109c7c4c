#!/usr/bin/env bash
# The dashboard's tests: the types, the logic, and the pages in a browser against a real server.
# `target/debug/picloud` must be built; `E2E_SCREENSHOTS=FOLDER` keeps pictures of the pages.
set -euo pipefail
cd "$(dirname "$0")/.."

# What is installed as the lock file says is left as it is.
install() {
    if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
        npm ci --no-fund --no-audit --silent
        cp package-lock.json node_modules/.installed-lock.json
    fi
}
install
(cd e2e && install)
npm run --silent check
npm run --silent test
exec node --test --test-concurrency=1 --test-reporter=spec e2e/*.test.js
