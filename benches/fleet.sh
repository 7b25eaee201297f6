#!/usr/bin/env bash
# Measures the server under thousands of imitated nodes, and prints one table; benches/README.md explains it. Takes less
# than 15 minutes once everything is built. Figures are written to target/fleet.json as well.
#
#   benches/fleet.sh                       everything
#   benches/fleet.sh churn storm           groups whose names have one of these words
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never
log=target/fleet.log
mkdir -p target/peers

command -v taskset > /dev/null || { echo "taskset (util-linux) is needed"; exit 1; }
echo "Building (the first time takes a few minutes)..."
cargo bench -p pointsman --bench fleet --no-run > "$log" 2>&1 || { tail -n 30 "$log"; exit 1; }
if command -v go > /dev/null && (cd benches/peers/go-control-plane && go build -o "$OLDPWD/target/peers/go-control-plane" .) >> "$log" 2>&1; then
  export GO_CONTROL_PLANE="$PWD/target/peers/go-control-plane"
else
  echo "No peer: go-control-plane needs a Go toolchain of 1.26 or later and the module proxy (see $log)."
fi
# Connections need descriptors on both sides.
ulimit -n "$(ulimit -Hn)"

benches/machine.sh
cargo bench --quiet -p pointsman --bench fleet -- "$@" 2> >(tee -a "$log" >&2)
