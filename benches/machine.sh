#!/usr/bin/env bash
# Says on what and of which revision the figures are that follow. Called by the scripts beside it.
set -euo pipefail

printf '\nMachine: %s × %s, %s GB, Linux %s; %s; load average before: %s\n' \
  "$(nproc)" "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" \
  "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1e6 }' /proc/meminfo)" "$(uname -r)" \
  "$(rustc --version)" "$(cut -d' ' -f1-3 /proc/loadavg)"
printf 'Revision: %s, %s\n' "$(git rev-parse --short HEAD 2> /dev/null || echo unknown)" "$(date -u +%Y-%m-%dT%H:%MZ)"
