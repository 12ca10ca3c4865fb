# `make` alone lists what there is.

# Where rustup puts cargo; a shell opened before Rust was installed doesn't know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Further arguments for the program that a target runs: make test ARGS='login -- --nocapture'
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test test-clients test-docs bench lint fmt ci policies reference sbom sqlx-prepare clean-dev services test-programs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: services ## start Tenantry with a Postgres and a Redis of its own; Ctrl-C stops all three
	cargo build
	@exec "$${CARGO_TARGET_DIR:-target}/debug/tenantry" dev $(ARGS)

# Most tests wait for Postgres, Redis or a time for part of theirs: with four for each of two cores
# the cores are busy.
test: export RUST_TEST_THREADS ?= 8
test: test-programs ## run all tests; ARGS goes to cargo test
	cargo test --workspace $(ARGS)

test-clients: services ## test the clients of other languages; ARGS='go java' for some
	scripts/test-clients $(ARGS)

test-docs: services ## run every command of the documentation
	scripts/test-docs

bench: services ## measure what decisions cost; ARGS='--quick', --help lists more
	cargo build --release --bin tenantry
	cargo build --release --package tenantry-bench
	@exec "$${CARGO_TARGET_DIR:-target}/release/tenantry-bench" $(ARGS)

lint: ## check the formatting, and lint with every warning an error
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## format the code
	cargo fmt --all

ci: services ## run what continuous integration runs
	.ci/run

policies: ## print every RPC and who may call it
	@cargo run --quiet -- policies

sbom: ## write what the program is made of: target/sbom/ (CycloneDX)
	scripts/sbom

reference: ## write the reference pages of the documentation anew
	@cargo run --quiet --package tenantry-reference

sqlx-prepare: services ## check the queries against a database and record them in .sqlx
	scripts/sqlx-prepare

clean-dev: ## delete the development databases
	scripts/clean-dev .tenantry

services:
	@scripts/install-services

# Tests run the server with a wrong clock.
test-programs:
	@scripts/install-services --for-tests
