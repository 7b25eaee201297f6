# The commands of this repository. `make demo` and `make test` need nothing but a Rust toolchain, Python's pip and,
# for the tests of gRPC-Go and of transparent interception, Go and root: everything else is fetched, pinned, into target/.

SHELL := /bin/bash
CARGO ?= cargo
DEMO_SECONDS ?= 0

.PHONY: help build demo test lint unit bench bench-fleet bench-rollout clean

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## Build the binary with optimisation
	@$(CARGO) build --release --quiet -p pointsman

demo: ## Walk a split by hand, then roll a good and a bad revision out, with real Envoys; DEMO_SECONDS=20 for the walk
	@deploy/tools/envoy.sh > /dev/null
	@echo "Building (the first time takes a few minutes)..."
	@$(CARGO) build --release --quiet -p pointsman
	@ENVOY_BIN="$$(deploy/tools/envoy.sh)" target/release/pointsman demo --seconds $(DEMO_SECONDS)

test: ## Everything that must hold: format, lints, documentation, licences, tests with real clients
	@tests/run.sh

lint: ## Format, lints, documentation and licences only
	@tests/run.sh lint

bench: ## Measure, and print the tables of benches/README.md
	@benches/run.sh

bench-fleet: ## Measure the server under thousands of imitated nodes, beside the least that could be
	@benches/fleet.sh

bench-rollout: ## Measure how fast a bad candidate is caught, and whether a good one gets through, with real Envoys
	@benches/rollout.sh

clean: ## Remove everything that was built or fetched
	@$(CARGO) clean
