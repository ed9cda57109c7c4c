#!/usr/bin/env bash
# Everything that has to pass: formatting, then all tests. The test runner's summary comes last.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-dependencies.sh --test

echo "test: formatting"
if cargo fmt --version >/dev/null 2>&1; then
    cargo fmt --all --check
fi
if cargo clippy --version >/dev/null 2>&1; then
    echo "test: lints (a cold run checks all dependencies: about two minutes on two cores)"
    cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
fi
echo "test: building (a cold build takes about four minutes on two cores)"
cargo build --workspace --all-targets --locked
echo "test: documentation examples"
cargo test --workspace --doc --locked --quiet
echo "test: the API, asked everything that its document allows (about a minute)"
scripts/test-api.sh
if command -v npm >/dev/null 2>&1; then
    echo "test: the dashboard, in a browser (about a minute)"
    dashboard/e2e/run.sh
else
    echo "test: the dashboard is left out: npm is not here"
fi
if command -v caddy >/dev/null 2>&1; then
    # What needs Caddy may not be passed over where it is.
    export PICLOUD_TEST_ALL=1
else
    echo "test: Caddy is not here, and not among the system's packages: what runs behind it is left out"
fi
echo "test: running (the program's own tests start real servers and take about five minutes)"
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --workspace --locked --no-fail-fast
fi
exec cargo test --workspace --all-targets --locked --no-fail-fast
