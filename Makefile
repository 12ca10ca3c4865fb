# `make` without a target lists the targets.

# The directory where rustup installs cargo. A shell that was opened before Rust was installed does
# not have it in its PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Additional arguments for the program that a target runs: make test ARGS='login -- --nocapture'
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run build test test-clients test-docs test-upgrade bench chaos soak lint fmt ci policies reference sbom sqlx-prepare clean-dev services test-programs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start Tenantry with a private Postgres and Redis; Ctrl-C stops all three
	@$(MAKE) --no-print-directory --jobs=2 services build
	@exec "$${CARGO_TARGET_DIR:-target}/debug/tenantry" dev $(ARGS)

# Most tests spend a part of their time waiting for Postgres, for Redis or for a timer. Eight tests at
# the same time keep two cores busy.
test: export RUST_TEST_THREADS ?= 8
test: test-programs ## run all tests; ARGS goes to cargo test
	cargo test --workspace $(ARGS)

test-clients: services ## test the clients of all languages; ARGS='go java' selects some
	scripts/test-clients $(ARGS)

test-docs: services ## run the commands of the documentation
	scripts/test-docs

bench: services ## measure the cost of decisions; ARGS='--quick'; --help lists more
	cargo build --release --bin tenantry
	cargo build --release --package tenantry-bench
	@exec "$${CARGO_TARGET_DIR:-target}/release/tenantry-bench" $(ARGS)

chaos: test-programs ## inject faults into a running system and check its answers; ARGS='--duration 5m'; --help lists more
	cargo build --bin tenantry
	cargo build --package tenantry-chaos
	@exec "$${CARGO_TARGET_DIR:-target}/debug/tenantry-chaos" $(ARGS)

soak: services ## send steady load for an hour and check that nothing grows; ARGS='--duration 10m'; --help lists more
	cargo build --release --bin tenantry
	cargo build --release --package tenantry-chaos
	@exec "$${CARGO_TARGET_DIR:-target}/release/tenantry-chaos" soak $(ARGS)

test-upgrade: test-programs ## serve with the previous release and this program side by side, and check the answers; ARGS='--duration 5m'
	cargo build --profile "$${BUILD_PROFILE:-dev}" $${BUILD_ARGS:---bin tenantry --package tenantry-chaos --bin tenantry-chaos}
	@previous=$$(scripts/previous-release) && \
	exec "$${CARGO_TARGET_DIR:-target}/debug/tenantry-chaos" --previous "$$previous" --nemesis change-release $(ARGS)

lint: ## check the formatting, and lint; every warning is an error
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## format the code
	cargo fmt --all

ci: services ## run what continuous integration runs
	.ci/run

policies: ## print every RPC and who may call it
	@cargo run --quiet -- policies

sbom: ## write the software bill of materials to target/sbom/ (CycloneDX)
	scripts/sbom

reference: ## generate the reference pages of the documentation
	@cargo run --quiet --package tenantry-reference

sqlx-prepare: services ## check the queries against a database and record them in .sqlx
	scripts/sqlx-prepare

clean-dev: ## delete the development databases
	scripts/clean-dev .tenantry

build:
	cargo build

services:
	@scripts/install-services

# The tests run servers with a wrong clock (faketime) and behind PgBouncer, and evaluate alerts
# (promtool).
test-programs:
	@scripts/install-services --for-tests
