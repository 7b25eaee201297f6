#!/usr/bin/env bash
# Prints the path of a Prometheus, unpacking Debian's package first if need be. Nothing is installed, no service starts.
#
#   PROMETHEUS_BIN=/path/to/prometheus  use this one, fetch nothing
#   CARGO_TARGET_DIR=DIR                keep it under DIR/tools instead of target/tools
#
# A Prometheus that is in the PATH is taken as it is. Standard output carries the path and nothing else. Calls that run
# at the same time wait for each other.
# Exit codes: 0 path printed, 1 it could not be had (the reason is on standard error).
set -euo pipefail

fail() {
    echo "prometheus.sh: $*" >&2
    exit 1
}

if [[ -n "${PROMETHEUS_BIN:-}" ]]; then
    [[ -x "$PROMETHEUS_BIN" ]] || fail "PROMETHEUS_BIN is \"$PROMETHEUS_BIN\", which is not an executable file"
    echo "$PROMETHEUS_BIN"
    exit 0
fi
if command -v prometheus; then
    exit 0
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${CARGO_TARGET_DIR:-$here/../../target}/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
binary=$tools/prometheus/usr/bin/prometheus

if [[ -x "$binary" ]]; then
    echo "$binary"
    exit 0
fi

for tool in flock apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || fail "$tool is missing; set PROMETHEUS_BIN"
done
exec 9>"$tools/prometheus.lock"
flock 9
if [[ -x "$binary" ]]; then
    echo "$binary"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "prometheus.sh: fetching the package prometheus" >&2
download() {
    # apt checks the package against the signed lists.
    (cd "$work" && apt-get download prometheus 9>&- >"$work/log" 2>&1)
}
# The package lists of a fresh image are often absent or old: refresh them only if the first attempt shows it.
if ! download; then
    { [[ $(id -u) -eq 0 ]] && apt-get update 9>&- >"$work/log" 2>&1 && download; } || {
        tail -5 "$work/log" >&2
        fail "apt-get could not fetch it; set PROMETHEUS_BIN"
    }
fi
dpkg-deb --extract "$work"/prometheus_*.deb "$work/root"
rm -rf "$tools/prometheus"
mv "$work/root" "$tools/prometheus"
echo "$binary"
