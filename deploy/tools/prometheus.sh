#!/usr/bin/env bash
# Prints the path of a Prometheus, unpacking Debian's package first if need be.
#
#   PROMETHEUS_BIN=/path/to/prometheus  use this one, fetch nothing
#   CARGO_TARGET_DIR=DIR                keep it under DIR/tools instead of target/tools
#
# A Prometheus that is in the PATH is taken as it is. Standard output carries the path and nothing else.
# Exit codes: 0 path printed, 1 it could not be had (the reason is on standard error).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

present PROMETHEUS_BIN prometheus
unpacked prometheus PROMETHEUS_BIN usr/bin/prometheus prometheus
echo "$root/usr/bin/prometheus"
