# The front door.  Every target is a line or two that calls cargo, xtask or a script.
# Build results lie outside of the checkout, so that a clean clone starts warm.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/arint
export CARGO_TARGET_DIR ?= $(CACHE)/target
SDK := appliance/arsrv/sdk
PYTHON = $$(scripts/python-env.sh)

.DEFAULT_GOAL := help
# What `make qemu` starts: BOXES=3 MEMORY=256 DISK=8 IMAGE=disk.img TPM=1 NEW=1
BOXES ?= 1
MEMORY ?= 512
DISK ?= 8

.PHONY: help run qemu test test-rust test-sdk test-image bench-image image-figures check format lint docs bench fuzz dist

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## run the whole node here (no root); ARGS="--help" shows what it takes
	@scripts/setup.sh run
	@ARINT_PYTHON=$(PYTHON) && export ARINT_PYTHON && cargo build --quiet --package arint && exec "$(CARGO_TARGET_DIR)/debug/arint" dev $(ARGS)

qemu: ## boot the bench image here (no root); BOXES=3 puts several on one LAN, MEMORY=, DISK=, IMAGE=, TPM=1, NEW=1
	@scripts/setup.sh image-test
	@exec "$$(scripts/python-env.sh)" tests/image/qemu.py --boxes $(BOXES) --memory $(MEMORY) --disk $(DISK) \
	  $(if $(IMAGE),--image $(IMAGE)) $(if $(TPM),--tpm) $(if $(NEW),--new)

test: test-rust test-sdk test-image ## run all tests

test-rust:
	@scripts/setup.sh test
	@ARINT_PYTHON=$(PYTHON) && export ARINT_PYTHON && cargo build --package arint && cargo test --workspace

test-sdk:
	@scripts/setup.sh test
	@cd $(SDK) && PYTHONPATH=src "$$(../../../scripts/python-env.sh)" -m pytest -q tests

test-image: ## boot, update, break and cut the power of the bench image in QEMU; ONLY="-k name" for one
	@scripts/setup.sh image-test
	@"$$(scripts/python-env.sh)" tests/image/run.py $(ONLY)

bench-image: ## build the bench image (no root where user name spaces are allowed), then its figures
	@scripts/setup.sh image
	@image/debian/build
	@$(MAKE) --no-print-directory image-figures

image-figures: ## the bench image beside a plain Debian in the same QEMU
	@scripts/setup.sh image-test
	@"$$(scripts/python-env.sh)" tests/image/figures.py

check: format lint test docs ## everything CI looks at: format, lints, tests, documentation

format: ## fail where the source is not formatted
	@cargo fmt --all --check

lint: ## clippy with warnings denied, types of the SDK, shellcheck
	@scripts/setup.sh check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@cd $(SDK) && "$$(../../../scripts/python-env.sh)" -m mypy --no-error-summary
	@shellcheck -x -P . scripts/*.sh .ci/run image/contract/*.sh image/buildroot/build image/buildroot/board/*.sh image/debian/*.sh image/debian/build image/debian/check-reproducible

docs: ## the Rust documentation, without warnings
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items --quiet

.PHONY: image bundle flash
image: ## the production image of a board, with Buildroot; BOARD=vendor/board [BUILDROOT=folder]
	@image/buildroot/build $(BOARD)

bundle: ## the signed update bundle alone, of this checkout; BOARD=vendor/board for a production image, VERSION=
ifeq ($(BOARD),)
	@scripts/setup.sh image
	@image/debian/build --only bundle --out "$(CACHE)/image/bundle" $(if $(VERSION),--version $(VERSION))
else
	@$(if $(VERSION),ARINT_IMAGE_VERSION=$(VERSION)) image/buildroot/build $(BOARD)
	@echo "$(CACHE)/buildroot/$(subst /,_,$(BOARD))/images/arint/bundle.raucb"
endif

flash: ## write an image to a disk; DEVICE=/dev/sdX [IMAGE=file | BOARD=vendor/board] [FORCE=sdX]
	@scripts/flash.sh $(if $(FORCE),--force-with-name $(FORCE)) "$(or $(IMAGE),$(if $(BOARD),$(CACHE)/buildroot/$(subst /,_,$(BOARD))/images/arint,$(CACHE)/image/bench)/image.img.zst)" "$(DEVICE)"

bench: ## figures beside the named peers (release build; ONLY=name for one, SECONDS= of the soak)
	@scripts/setup.sh bench
	@ARINT_PYTHON=$(PYTHON) && export ARINT_PYTHON && cargo build --release --quiet --package arint --package bench && exec "$(CARGO_TARGET_DIR)/release/bench" $(ONLY)

fuzz: ## a minute of random input for each of our own parsers
	@BOLERO_RANDOM_TEST_TIME_MS=60000 BOLERO_RANDOM_ITERATIONS=1000000000 cargo test --package fuzz

dist: ## release notes from the change fragments
	@cargo run --quiet --package xtask -- notes
