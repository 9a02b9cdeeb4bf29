# Everything is built in one profile, with libtorch. What is missing is fetched into $(MILLRACE_CACHE), which git ignores.

MILLRACE_CACHE ?= $(CURDIR)/.cache
CARGO_TARGET_DIR ?= $(MILLRACE_CACHE)/target
export MILLRACE_CACHE CARGO_TARGET_DIR

# Set in one place: torch-sys is compiled anew, for minutes, whenever it changes.
with_libtorch = LIBTORCH="$$(scripts/libtorch.sh)" && export LIBTORCH

FLAGS = --release --locked --workspace --features torch

.PHONY: help run build test test-broker check features msrv check-aarch64 docs bench audit fmt

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 15

run: build ## Build, start everything, submit images, watch the fleet go from 0 to N and back
	@scripts/run.sh "$(CARGO_TARGET_DIR)/release/millrace"

build: ## Build the program with libtorch
	$(with_libtorch) && cargo build $(FLAGS) --bins

test: ## Pass every test, against real brokers on this machine
	$(with_libtorch) && cargo test $(FLAGS) --no-run
	$(with_libtorch) && MILLRACE_TEST_PYTHONPATH="$$(scripts/python.sh)" && export MILLRACE_TEST_PYTHONPATH && \
		scripts/servers.sh run cargo test $(FLAGS)

test-broker: ## Test one broker: make test-broker BROKER=kafka (or embedded, rabbitmq, redis); without libtorch
	scripts/servers.sh run cargo test --release --locked -p millrace-queue-$(BROKER)
	scripts/servers.sh run cargo test --release --locked -p millrace-tests --test scenarios -- $(BROKER)

check: docs ## Check format, lints, documentation and dependencies
	cargo fmt --check
	$(with_libtorch) && cargo clippy $(FLAGS) --all-targets -- -D warnings
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	$(with_libtorch) && RUSTDOCFLAGS="-D warnings" cargo doc $(FLAGS) --no-deps --document-private-items
	"$$(scripts/cargo-deny.sh)" --all-features --log-level warn check --hide-inclusion-graph bans licenses sources

features: ## Check that each crate compiles with each of its features alone
	scripts/features.sh

# The oldest compiler that builds the project.
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

msrv: ## Check with the oldest supported compiler, which rustup fetches
	rustup toolchain install $(MSRV) --profile minimal --no-self-update
	cargo +$(MSRV) check --release --locked --workspace --all-targets

check-aarch64: ## Check for 64-bit ARM; elsewhere this needs gcc and g++ for aarch64-linux-gnu
	rustup target add aarch64-unknown-linux-gnu
	cargo check --release --locked --workspace --target aarch64-unknown-linux-gnu

docs: ## Build the book, and check the links of all documents
	scripts/links.py
	"$$(scripts/mdbook.sh)" build docs --dest-dir "$(abspath $(MILLRACE_CACHE))/book"

audit: ## Check dependencies against the RustSec advisories (fetches their database)
	"$$(scripts/cargo-deny.sh)" --all-features --log-level warn check --hide-inclusion-graph advisories

bench: build ## Measure submits, drained jobs, and the digits model against its raw loop
	scripts/servers.sh run "$(CARGO_TARGET_DIR)/release/millrace-bench"

fmt: ## Format the code
	cargo fmt
