# What the scripts that measure share; to be sourced by one of them, in its own folder.
#
# BENCH_DATA_DIR   folder on the disk to measure (default: the system's folder for temporary files)
# BENCH_RESULTS    where results go (default: bench/results)
# BENCH_ONEFOLD    the product's program, if it is not to be built here
# BENCH_EXTRA      further arguments for the one program that is named
root=$(cd ../.. && pwd)
results=${BENCH_RESULTS:-$root/bench/results}
data=${BENCH_DATA_DIR:-${TMPDIR:-/tmp}}
extra=${BENCH_EXTRA:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/onefold-bench
mkdir -p "$results"

# What a reader must know to compare: machine, kernel, versions, commit, load at the start.
header() {
  echo "program: $1"
  echo "date: $(date -u +%Y-%m-%dT%H:%MZ)"
  echo "commit: $(git -C "$root" rev-parse --short=12 HEAD)$(git -C "$root" diff --quiet HEAD -- crates bench ':!bench/results' ':!bench/README.md' || echo ' with changes')"
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
  { header "$name"; [ -z "${note:-}" ] || echo "$note"; echo "command: $*"; echo; "$@"; } |
    sed -u "s#$root/##g; s#$(target)#target#g; s#$cache/##g" | tee "$file"
  echo "kept in $file"
}

# All at once: the same features, so the same builds, whichever program is asked for.
build() { cargo build --release --quiet; }
target() { cargo metadata --format-version 1 --no-deps | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4; }

# The product's program, built unless one is named.
onefold_program() {
  if [ -z "${BENCH_ONEFOLD:-}" ]; then
    (cd "$root" && cargo build --release --quiet -p onefold-cli)
    BENCH_ONEFOLD=$(cd "$root" && target)/release/onefold
  fi
  echo "$BENCH_ONEFOLD"
}

# Installs a package of the system where that may be done without asking.
install_package() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1"; } >&2 || true
  fi
}

# etcd from the system's packages; nothing where there is none.
etcd_program() {
  command -v etcd >/dev/null || install_package etcd-server
  command -v etcd || true
}
