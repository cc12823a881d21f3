#!/usr/bin/env bash
# Measures the consensus layer: builds what is needed, runs the named programs (all by default) one
# after the other, and keeps what they print in bench/results/.
#
#   bench/consensus/run.sh [core|proposals|idle|leader-kill|memory|all]...
#
# The settings are those of bench/common/record.sh.
set -euo pipefail
cd "$(dirname "$0")"
. ../common/record.sh

version_of() { cargo tree -p "$1" --depth 1 --prefix none 2>/dev/null | grep -o "^$2 v[^ ]*"; }

core() {
  build
  note="peers: $(version_of onefold-bench-core openraft), $(version_of onefold-bench-core raft)" \
    record core "$(target)/release/onefold-bench-core" $extra
}

proposals() {
  build
  record proposals "$(target)/release/onefold-bench-cluster" proposals --data-dir "$data" $extra
}

idle() {
  build
  record idle "$(target)/release/onefold-bench-cluster" idle --data-dir "$data" $extra
}

# The product itself, with etcd beside it where there is one.
leader_kill() {
  local onefold etcd
  build
  onefold=$(onefold_program)
  etcd=$(etcd_program)
  note="peer: ${etcd:+$("$etcd" --version | head -1)}" \
    record leader-kill "$(target)/release/onefold-bench-cluster" leader-kill --data-dir "$data" \
    --onefold "$onefold" ${etcd:+--etcd "$etcd"} $extra
}

memory() {
  build
  record memory "$(target)/release/onefold-bench-cluster" memory --data-dir "$data" \
    --csv "$results/$(date -u +%Y-%m-%d-%H%M)-memory.csv" $extra
}

[ $# -gt 0 ] || set -- all
for name; do
  case $name in
    core | proposals | idle | memory) "$name" ;;
    leader-kill) leader_kill ;;
    all) core; proposals; idle; leader_kill; memory ;;
    *) echo "unknown: $name; one of core, proposals, idle, leader-kill, memory, all" >&2; exit 2 ;;
  esac
done
