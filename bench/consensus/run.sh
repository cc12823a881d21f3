#!/usr/bin/env bash
# Measures the consensus layer: builds what is needed, runs the named programs (all by default) one
# after the other, and keeps what they print in bench/results/.
#
#   bench/consensus/run.sh [core|proposals|puts|idle|leader-kill|memory|all]...
#
# BENCH_DATA_DIR   folder on the disk to measure (default: the system's folder for temporary files)
# BENCH_RESULTS    where results go (default: bench/results)
# BENCH_ONEFOLD    the product's program, if it is not to be built here
# BENCH_EXTRA      further arguments for the one program that is named
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
results=${BENCH_RESULTS:-$root/bench/results}
data=${BENCH_DATA_DIR:-${TMPDIR:-/tmp}}
extra=${BENCH_EXTRA:-}
mkdir -p "$results"

version_of() { cargo tree -p "$1" --depth 1 --prefix none 2>/dev/null | grep -o "^$2 v[^ ]*"; }

# What a reader must know to compare: machine, kernel, versions, commit, load at the start.
header() {
  echo "program: $1"
  echo "date: $(date -u +%Y-%m-%dT%H:%MZ)"
  echo "commit: $(git -C "$root" rev-parse --short=12 HEAD)$(git -C "$root" diff --quiet HEAD -- crates bench/consensus || echo ' with changes')"
  echo "kernel: $(uname -srm); cores: $(nproc); $(awk -F: '/model name/ {print $2; exit}' /proc/cpuinfo | xargs)"
  echo "memory: $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo); data on: $(stat -f -c %T "$data")"
  echo "rustc: $(rustc --version); release profile"
  echo "load average at the start: $(cut -d' ' -f1-3 /proc/loadavg)"
}

# Runs one program with its header into a dated file, and shows it.
record() {
  local name=$1
  shift
  local file
  file="$results/$(date -u +%Y-%m-%d-%H%M)-$name.txt"
  { header "$name"; [ -z "${note:-}" ] || echo "$note"; echo "command: $*"; echo; "$@"; } | sed -u "s#$root/##g; s#$(target)#target#g" | tee "$file"
  echo "kept in $file"
}

# All at once: the same features, so the same builds, whichever program is asked for.
build() { cargo build --release --quiet; }
target() { cargo metadata --format-version 1 --no-deps | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4; }

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

# etcd comes from the system's packages; without it Onefold is measured alone.
etcd_program() {
  if ! command -v etcd >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq etcd-server; } >&2 || true
  fi
  command -v etcd || true
}

# One of the programs that run the product itself, with etcd beside it where there is one.
with_etcd() {
  local name=$1 onefold=${BENCH_ONEFOLD:-} etcd
  build
  if [ -z "$onefold" ]; then
    (cd "$root" && cargo build --release --quiet -p onefold-cli)
    onefold=$(cd "$root" && target)/release/onefold
  fi
  etcd=$(etcd_program)
  note="peer: ${etcd:+$("$etcd" --version | head -1)}" \
    record "$name" "$(target)/release/onefold-bench-cluster" "$name" --data-dir "$data" \
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
    puts | leader-kill) with_etcd "$name" ;;
    all) core; proposals; with_etcd puts; idle; with_etcd leader-kill; memory ;;
    *) echo "unknown: $name; one of core, proposals, puts, idle, leader-kill, memory, all" >&2; exit 2 ;;
  esac
done
