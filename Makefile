# Targets explain themselves: `make` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
TARGET ?= $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

.PHONY: help up dev bench test lighthouse soak check fmt schema sqlx-prepare clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Builds, starts everything and deploys examples-repo on 127.0.0.1:8080
	@scripts/install-dependencies.sh
	@echo "up: building (the first time takes about five minutes)"
	@cargo build --release --locked -p picloud
	@exec $(TARGET)/release/picloud up examples-repo --listen 127.0.0.1:8080

test: ## Runs everything that has to pass
	@exec scripts/test.sh

dev: ## Builds, and deploys the files of examples-repo as they are saved
	@scripts/install-dependencies.sh
	@cargo build --release --locked -p picloud
	@exec $(TARGET)/release/picloud dev examples-repo --listen 127.0.0.1:8080

bench: ## Measures PiCloud beside its limits; takes about six minutes
	@scripts/install-dependencies.sh --bench
	@cargo build --release --locked -p picloud -p picloud-bench
	@exec $(TARGET)/release/picloud-bench

lighthouse: ## What Lighthouse says of the dashboard, and how its pages are with 1,000 apps and 100,000 runs
	@scripts/install-dependencies.sh --test
	@cargo build --release --locked -p picloud
	@cd dashboard/e2e && npm ci --no-fund --no-audit --silent
	@cd dashboard && PICLOUD_BIN=$(abspath $(TARGET))/release/picloud node e2e/lighthouse.js
	@cd dashboard && PICLOUD_BIN=$(abspath $(TARGET))/release/picloud node e2e/scale.js

soak: ## Kills the server and PostgreSQL at random under load for ten minutes, and counts what became of each write
	@cargo build --release --locked -p picloud
	@scripts/soak.py $(TARGET)/release/picloud 600

check: ## Formatting, lints, and licences where cargo-deny is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; fi

fmt: ## Formats the code
	cargo fmt --all

schema: ## Writes the schemas anew after app.yaml, picloud.yaml or the SDK changed
	@for kind in app picloud openapi rhai; do cargo run -q -p picloud -- schema $$kind --out schema; done
	@cd dashboard && npm run --silent api
	@UPDATE_GOLDEN=1 cargo test -q -p picloud-executor-core --lib the_reference_is_fresh

sqlx-prepare: ## Writes .sqlx anew after a query or a migration changed
	@exec scripts/sqlx-prepare.sh

clean: ## Removes what was built
	cargo clean
