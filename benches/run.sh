#!/usr/bin/env bash
# Runs every benchmark and prints one table per topic; benches/README.md explains them.
#
#   benches/run.sh              everything, about five minutes once it is built
#   benches/run.sh latency      one topic: compile, translate, snapshot, stream, memory, latency or sending
#   benches/run.sh rollout      the simulated analysis; some minutes, not among everything
#
# Criterion's own output goes to target/bench.log.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never
topic="${1:-all}"
log=target/bench.log
mkdir -p target

wanted() { [ "$topic" = all ] || [ "$topic" = "$1" ]; }

# Cargo's lines and Criterion's go to the log.
quietly() {
  if ! "$@" >> "$log" 2>&1; then
    tail -n 30 "$log"
    echo "failed: $* (the whole output is in $log)"
    exit 1
  fi
}

: > "$log"
if [ "$topic" = rollout ]; then
  exec cargo bench --quiet -p pointsman-rollout --bench rollout_sim 2>> "$log"
fi
echo "Building (the first time takes a few minutes)..."
quietly cargo bench -p pointsman --benches --no-run
ENVOY_BIN="$(deploy/tools/envoy.sh)"
export ENVOY_BIN

benches/machine.sh

# First what is measured against the clock through real processes, while the machine is cool.
for bench in latency memory sending; do
  if wanted "$bench"; then
    cargo bench --quiet -p pointsman --bench "$bench" 2>> "$log" || { tail -n 30 "$log"; exit 1; }
  fi
done
for bench in compile translate snapshot stream; do
  if wanted "$bench"; then quietly cargo bench -p pointsman --bench "$bench"; fi
done
case "$topic" in
  all) cargo bench --quiet -p pointsman --bench report 2>> "$log" ;;
  latency | memory | sending) ;;
  *) cargo bench --quiet -p pointsman --bench report -- "$topic" 2>> "$log" ;;
esac
