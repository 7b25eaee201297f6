#!/usr/bin/env bash
# Installs the Debian packages that the tests with network namespaces need: iproute2 (ip) and iptables.
#
# Installs only what is missing, and only as root; otherwise it says which tests will be skipped and why, and succeeds,
# because those tests look for themselves and skip with the same reason.
# Exit codes: 0 always, unless called with --strict: then 1 if something is still missing.
set -uo pipefail

strict=no
[[ "${1:-}" == "--strict" ]] && strict=yes

missing=()
command -v ip >/dev/null || missing+=(iproute2)
command -v iptables >/dev/null || missing+=(iptables)
if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi

skip() {
    echo "packages.sh: $*; tests of transparent interception will be skipped (missing: ${missing[*]})" >&2
    [[ "$strict" == yes ]] && exit 1
    exit 0
}

[[ $(id -u) -eq 0 ]] || skip "not root"
command -v apt-get >/dev/null || skip "no apt-get on this machine"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "packages.sh: installing ${missing[*]}" >&2
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}" >"$log" 2>&1
}
# The package lists of a fresh image are often absent or old: refresh them only if the first attempt shows it.
if ! install; then
    apt-get update >"$log" 2>&1 && install || {
        tail -5 "$log" >&2
        skip "apt-get could not install them"
    }
fi
exit 0
