#!/usr/bin/env bash
# Prints the path of a Python interpreter that has gRPC with its own xDS client, building it first if need be.
#
#   GRPC_PYTHON=/path/to/python  use this one, fetch nothing
#   CARGO_TARGET_DIR=DIR         keep the environment under DIR/tools instead of target/tools
#
# Versions and hashes are in grpc-client.requirements.txt; a change of that file makes a new environment.
# Standard output carries the path and nothing else. Calls that run at the same time wait for each other.
# Exit codes: 0 path printed, 1 it could not be had (the reason is on standard error).
set -euo pipefail

fail() {
    echo "grpc-client.sh: $*" >&2
    exit 1
}

if [[ -n "${GRPC_PYTHON:-}" ]]; then
    [[ -x "$GRPC_PYTHON" ]] || fail "GRPC_PYTHON is \"$GRPC_PYTHON\", which is not an executable file"
    echo "$GRPC_PYTHON"
    exit 0
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/grpc-client.requirements.txt
tools=${CARGO_TARGET_DIR:-$here/../../target}/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
environment=$tools/grpc-$(sha256sum "$requirements" | cut -c1-12)
# The stamp is written last: an environment without it was interrupted and is built anew.
stamp=$environment/.complete

if [[ -e "$stamp" ]]; then
    echo "$environment/bin/python3"
    exit 0
fi

command -v flock >/dev/null || fail "flock is missing (package util-linux)"
exec 9>"$tools/grpc-client.lock"
flock 9
if [[ -e "$stamp" ]]; then
    echo "$environment/bin/python3"
    exit 0
fi

command -v python3 >/dev/null || fail "python3 is missing; install it (apt-get install python3 python3-venv) or set GRPC_PYTHON"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! python3 -m venv --clear "$environment" 9>&- >"$log" 2>&1; then
    cat "$log" >&2
    fail "could not make a virtual environment; install the package python3-venv, or set GRPC_PYTHON"
fi
echo "grpc-client.sh: fetching $(sed -n 's/^\(grpcio==[^ ]*\).*/\1/p' "$requirements") from PyPI" >&2
if ! "$environment/bin/python3" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes \
    --requirement "$requirements" 9>&- >"$log" 2>&1; then
    cat "$log" >&2
    fail "could not install gRPC for $(uname -sm) and $(python3 --version); check the network, or set GRPC_PYTHON"
fi
touch "$stamp"
echo "$environment/bin/python3"
