# The front door.  Every target is a line or two that calls cargo, xtask or a script.
# Build results lie outside of the checkout, so that a clean clone starts warm.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/arint
export CARGO_TARGET_DIR ?= $(CACHE)/target
SDK := appliance/arsrv/sdk
PYTHON = $$(scripts/python-env.sh)

.DEFAULT_GOAL := help
.PHONY: help run test test-rust test-sdk check format lint docs bench fuzz dist

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## run the whole node here (no root); ARGS="--help" shows what it takes
	@scripts/setup.sh run
	@ARINT_PYTHON=$(PYTHON) && export ARINT_PYTHON && cargo build --quiet --package arint && exec "$(CARGO_TARGET_DIR)/debug/arint" dev $(ARGS)

test: test-rust test-sdk ## run all tests

test-rust:
	@scripts/setup.sh test
	@ARINT_PYTHON=$(PYTHON) && export ARINT_PYTHON && cargo build --package arint && cargo test --workspace

test-sdk:
	@scripts/setup.sh test
	@cd $(SDK) && PYTHONPATH=src "$$(../../../scripts/python-env.sh)" -m pytest -q tests

check: format lint test docs ## everything CI looks at: format, lints, tests, documentation

format: ## fail where the source is not formatted
	@cargo fmt --all --check

lint: ## clippy with warnings denied, types of the SDK, shellcheck
	@scripts/setup.sh check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@cd $(SDK) && "$$(../../../scripts/python-env.sh)" -m mypy --no-error-summary
	@shellcheck scripts/*.sh .ci/run

docs: ## the Rust documentation, without warnings
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items --quiet

bench: ## figures beside the named peers (release build; ONLY=name for one)
	@scripts/setup.sh bench
	@ARINT_PYTHON=$(PYTHON) && export ARINT_PYTHON && cargo build --release --quiet --package arint --package bench && exec "$(CARGO_TARGET_DIR)/release/bench" $(ONLY)

fuzz: ## a minute of random input for each of our own parsers
	@BOLERO_RANDOM_TEST_TIME_MS=60000 BOLERO_RANDOM_ITERATIONS=1000000000 cargo test --package fuzz

dist: ## release notes from the change fragments
	@cargo run --quiet --package xtask -- notes
