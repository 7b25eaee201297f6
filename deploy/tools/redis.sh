#!/usr/bin/env bash
# Prints the path of a Redis server, unpacking Debian's packages first if need be.
#
#   REDIS_BIN=/path/to/redis-server  use this one, fetch nothing
#   CARGO_TARGET_DIR=DIR             keep it under DIR/tools instead of target/tools
#
# A Redis that is in the PATH is taken as it is. Standard output carries the path and nothing else.
# Exit codes: 0 path printed, 1 it could not be had (the reason is on standard error).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

present REDIS_BIN redis-server
# The server is one program with the tools, and looks at the name that it is called by.
unpacked redis REDIS_BIN usr/bin/redis-check-rdb redis-tools libjemalloc2 liblzf1 libatomic1
if [[ ! -x "$root/redis-server" ]]; then
    cat >"$root/redis-server.$$" <<'WRAPPER'
#!/usr/bin/env bash
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export LD_LIBRARY_PATH="$(echo "$here"/usr/lib/*-linux-gnu)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec -a redis-server "$here/usr/bin/redis-check-rdb" "$@"
WRAPPER
    chmod +x "$root/redis-server.$$"
    mv "$root/redis-server.$$" "$root/redis-server"
fi
echo "$root/redis-server"
