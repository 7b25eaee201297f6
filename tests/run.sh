#!/usr/bin/env bash
# Runs everything that must hold on a change, and ends with one summary line over all tests.
#
#   tests/run.sh        everything
#   tests/run.sh lint   format, lints, documentation and licences only
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}" CARGO_TERM_PROGRESS_WHEN=never
# Everything is built once; what helps to build it again takes gigabytes.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
# Properties are tried with the same cases each time, so that a change is judged by what it does;
# `PROPTEST_RNG_SEED=$RANDOM tests/run.sh` looks for others.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT

step() { printf '== %s\n' "$*"; }

lint() {
  step "format"
  cargo fmt --all --check
  step "lints"
  cargo clippy --quiet --workspace --all-targets -- -D warnings
  step "documentation"
  RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --document-private-items
  step "licences"
  if command -v cargo-deny > /dev/null; then
    cargo deny --log-level error check licenses bans sources
  else
    echo "skipped: cargo-deny is not installed (cargo install cargo-deny)"
  fi
}

lint
[ "${1:-}" = lint ] && exit 0

step "tools"
ENVOY_BIN="$(deploy/tools/envoy.sh)"
GRPC_PYTHON="$(deploy/tools/grpc-client.sh)"
GRPC_GO="$(deploy/tools/grpc-go.sh)"
PROMETHEUS_BIN="$(deploy/tools/prometheus.sh)"
REDIS_BIN="$(deploy/tools/redis.sh)"
export ENVOY_BIN GRPC_PYTHON GRPC_GO PROMETHEUS_BIN REDIS_BIN
deploy/tools/packages.sh

step "tests"
cargo test --quiet --workspace --no-run
set +e
cargo test --workspace --no-fail-fast 2>&1 | tee "$log" |
  grep -vE '^(test .* \.\.\. ok|running [0-9]+ tests?|successes:| +(Finished|Running|Doc-tests) .*|)$'
status="${PIPESTATUS[0]}"
set -e
awk '
  /^test result:/ { for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i } }
  /^skipped: / { s++ }
  END { printf "%d passed, %d failed, %d skipped\n", p, f, s }
' "$log"
exit "$status"
