#!/usr/bin/env bash
# Measures runs of deployment intents with real Envoys and real load, and prints a table for each question;
# benches/README.md explains them. Takes less than 20 minutes once everything is built. Figures are written to
# target/rollout.json as well.
#
#   benches/rollout.sh                     everything: detect, whole, healthy, fleet, kill
#   benches/rollout.sh detect whole        groups whose names have one of these words
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never
log=target/rollout.log
mkdir -p target

echo "Building (the first time takes a few minutes)..."
cargo bench -p pointsman --bench rollout --no-run > "$log" 2>&1 || { tail -n 30 "$log"; exit 1; }
ENVOY_BIN="$(deploy/tools/envoy.sh)"
export ENVOY_BIN
# Connections need descriptors on both sides.
ulimit -n "$(ulimit -Hn)"

benches/machine.sh
cargo bench --quiet -p pointsman --bench rollout -- "$@" 2> >(tee -a "$log" >&2)
