# All targets use one build profile, with libtorch. Missing files are fetched into $(MILLRACE_CACHE), which git ignores.

MILLRACE_CACHE ?= $(CURDIR)/.cache
CARGO_TARGET_DIR ?= $(MILLRACE_CACHE)/target
export MILLRACE_CACHE CARGO_TARGET_DIR

# Always set here: torch-sys is compiled again, for minutes, whenever LIBTORCH changes.
with_libtorch = LIBTORCH="$$(scripts/libtorch.sh)" && export LIBTORCH

FLAGS = --release --locked --workspace --features torch

# Crates whose tests need a server: the clients of RabbitMQ, Kafka and Redis, and the whole system.
NEED_SERVERS = millrace-queue-kafka millrace-queue-rabbitmq millrace-queue-redis millrace-backends millrace-tests
FAST_FLAGS = --release --locked

.PHONY: help run openssl build test test-fast test-broker check features msrv check-aarch64 docs bench audit fuzz fmt reference chart monitoring images test-deploy

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 15

run: build ## Build, start everything, submit images, and show the fleet scale from 0 to N and back
	@scripts/run.sh "$(CARGO_TARGET_DIR)/release/millrace"

openssl:
	@scripts/openssl.sh

build: openssl ## Build the program with libtorch
	$(with_libtorch) && cargo build $(FLAGS) --bin millrace

test: openssl ## Run all tests, with real brokers on this machine, and fuzz each parser for a second
	$(with_libtorch) && cargo test $(FLAGS) --no-run
	$(with_libtorch) && MILLRACE_TEST_PYTHONPATH="$$(scripts/python.sh)" && export MILLRACE_TEST_PYTHONPATH && \
		scripts/servers.sh run cargo test $(FLAGS)
	FUZZ_RUNS=5000 scripts/fuzz.sh

# Left out: tests of RabbitMQ, Kafka and Redis, the scenarios of the whole system, TorchScript models. `make test` has them.
test-fast: openssl ## Run the tests that need no server and no libtorch
	cargo test $(FAST_FLAGS) --workspace $(NEED_SERVERS:%=--exclude %)
	cargo test $(FAST_FLAGS) --package millrace-tests --test scenarios -- arrows:: circles:: sizes::

test-broker: openssl ## Test one broker: make test-broker BROKER=kafka (or embedded, rabbitmq, redis); without libtorch
	scripts/servers.sh run cargo test --release --locked -p millrace-queue-$(BROKER)
	cargo build --release --locked --bin millrace
	scripts/servers.sh run cargo test --release --locked -p millrace-tests --test scenarios -- $(BROKER)

check: openssl docs ## Check format, lints, plain English, the book, documentation and dependencies
	cargo fmt --check
	scripts/plain-english.sh
	$(with_libtorch) && cargo clippy $(FLAGS) --all-targets -- -D warnings
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	$(with_libtorch) && RUSTDOCFLAGS="-D warnings" cargo doc $(FLAGS) --no-deps --document-private-items
	"$$(scripts/cargo-deny.sh)" --all-features --log-level warn check --hide-inclusion-graph bans licenses sources

features: openssl ## Check that each crate compiles with each of its features alone
	scripts/features.sh

# The oldest compiler that builds the project.
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

msrv: openssl ## Check with the oldest supported compiler, which rustup fetches
	rustup toolchain install $(MSRV) --profile minimal --no-self-update
	cargo +$(MSRV) check --release --locked --workspace --all-targets

check-aarch64: ## Check for 64-bit ARM; elsewhere this needs gcc and g++ for aarch64-linux-gnu
	rustup target add aarch64-unknown-linux-gnu
	cargo check --release --locked --workspace --target aarch64-unknown-linux-gnu

chart: ## Check the Helm chart: objects, schemas, pod security, refused values (needs Go)
	scripts/chart.sh

monitoring: ## Check the rules, alerts and dashboards of Prometheus and Grafana (needs Go)
	scripts/monitoring.sh

test-deploy: chart monitoring images ## Check everything in deploy: chart, rules, dashboards, images

images: build ## Build the container images, and run them (needs root on Debian 12)
	scripts/images.sh "$(CARGO_TARGET_DIR)/release/millrace"

docs: ## Build the book, and check the links of all documents
	scripts/links.py
	"$$(scripts/mdbook.sh)" build docs --dest-dir "$(abspath $(MILLRACE_CACHE))/book"

audit: ## Check dependencies against the RustSec advisories (fetches their database)
	"$$(scripts/cargo-deny.sh)" --all-features --log-level warn check --hide-inclusion-graph advisories

fuzz: ## Fuzz the parsers of bytes that come from outside (FUZZ_RUNS=20000 inputs each)
	@scripts/fuzz.sh

bench: build ## Measure submissions, drained jobs, and the digits model beside a raw loop
	$(with_libtorch) && cargo build $(FLAGS) --bin millrace-bench
	scripts/servers.sh run "$(CARGO_TARGET_DIR)/release/millrace-bench"

fmt: ## Format the code
	cargo fmt

reference: ## Write docs/configuration.md from the settings and their comments
	mkdir -p docs
	cargo run --release --locked --package millrace-cli -- config reference >docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md
