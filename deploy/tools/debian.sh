# For the scripts beside it that print the path of a tool out of Debian's packages: sourced, not run.
#
#   unpacked NAME VARIABLE PROGRAM PACKAGE...
#       unpacks the packages into target/tools/NAME, if they are not there yet, and sets root to that directory.
#       PROGRAM is a path in it that is there when all is well; VARIABLE names what names the tool instead.
#
# Nothing is installed, no service starts. Calls that run at the same time wait for each other.

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# Prints the tool that the environment names, or that is in the PATH, and ends; goes on if there is none.
present() {
    local variable=$1 command=$2
    if [[ -n "${!variable:-}" ]]; then
        [[ -x "${!variable}" ]] || fail "$variable is \"${!variable}\", which is not an executable file"
        echo "${!variable}"
        exit 0
    fi
    if command -v "$command"; then
        exit 0
    fi
}

unpacked() {
    local name=$1 variable=$2 program=$3
    shift 3
    local tools=${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../../target}/tools
    mkdir -p "$tools"
    tools=$(cd "$tools" && pwd)
    root=$tools/$name
    [[ -e "$root/$program" ]] && return
    for tool in flock apt-get dpkg-deb; do
        command -v "$tool" >/dev/null || fail "$tool is missing; set $variable"
    done
    exec 9>"$tools/$name.lock"
    flock 9
    [[ -e "$root/$program" ]] && return

    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    echo "$(basename "$0"): fetching the packages $*" >&2
    # The package lists of a fresh image are often absent or old: refresh them only if the first attempt shows it.
    if ! download "$@"; then
        { [[ $(id -u) -eq 0 ]] && apt-get update 9>&- >"$work/log" 2>&1 && download "$@"; } || {
            tail -5 "$work/log" >&2
            fail "apt-get could not fetch it; set $variable"
        }
    fi
    for package in "$work"/*.deb; do
        dpkg-deb --extract "$package" "$work/root"
    done
    rm -rf "$root"
    mv "$work/root" "$root"
}

# apt checks the packages against the signed lists.
download() {
    (cd "$work" && apt-get download "$@" 9>&- >"$work/log" 2>&1)
}
