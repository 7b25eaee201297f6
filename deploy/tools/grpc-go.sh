#!/usr/bin/env bash
# Prints the path of a program that is a client and a server of gRPC's implementation in Go, with its own xDS, building it
# first if need be.
#
#   GRPC_GO=/path/to/program   use this one, build nothing
#   CARGO_TARGET_DIR=DIR       keep the program under DIR/tools instead of target/tools
#
# The source is in crates/testkit/go; its go.mod and go.sum say the versions and hashes of what it is built from, which the
# Go toolchain fetches as it is configured to. A change of any of these files makes a new program.
# Standard output carries the path and nothing else. Calls that run at the same time wait for each other; the program appears
# under its final name in one step.
# Exit codes: 0 path printed, 1 it could not be had (the reason is on standard error).
set -euo pipefail

fail() {
    echo "grpc-go.sh: $*" >&2
    exit 1
}

if [[ -n "${GRPC_GO:-}" ]]; then
    [[ -x "$GRPC_GO" ]] || fail "GRPC_GO is \"$GRPC_GO\", which is not an executable file"
    echo "$GRPC_GO"
    exit 0
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$here/../../crates/testkit/go
tools=${CARGO_TARGET_DIR:-$here/../../target}/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
program=$tools/grpc-go-$(cat "$source"/*.go "$source"/go.mod "$source"/go.sum | sha256sum | cut -c1-12)

if [[ -x "$program" ]]; then
    echo "$program"
    exit 0
fi

command -v flock >/dev/null || fail "flock is missing (package util-linux)"
exec 9>"$tools/grpc-go.lock"
flock 9
# Somebody else may have built it while this call waited for the lock.
if [[ -x "$program" ]]; then
    echo "$program"
    exit 0
fi

wanted=$(sed -n 's/^go //p' "$source/go.mod")
command -v go >/dev/null || fail "go is missing; install Go $wanted or newer, or set GRPC_GO"

scratch=$(mktemp -d "$tools/grpc-go.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
echo "grpc-go.sh: building gRPC-Go $(sed -n 's/^require google.golang.org\/grpc v//p' "$source/go.mod") (takes a minute or three)" >&2
# The toolchain of this machine or none, and nothing but what go.sum names.
if ! GOTOOLCHAIN=local GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED=0 \
    go build -C "$source" -trimpath -buildvcs=false -ldflags='-s -w' -o "$scratch/grpc-go" . 9>&- >"$scratch/log" 2>&1; then
    cat "$scratch/log" >&2
    fail "could not build it with $(go version); it needs Go $wanted and the modules of go.sum: check the network, or set GRPC_GO"
fi
mv "$scratch/grpc-go" "$program"
echo "$program"
