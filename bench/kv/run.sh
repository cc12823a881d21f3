#!/usr/bin/env bash
# Measures the key-value service beside etcd and ZooKeeper: builds and installs what is needed, runs
# the named programs (all by default) one after the other, and keeps what they print in
# bench/results/.
#
#   bench/kv/run.sh [puts|ranges|mixed|offered|keyspaces|watch|lease|memory|all]...
#
# BENCH_ETCD_VERSION   the etcd to build from Go's module proxy (default: v3.7.3), "none" for none
#
# The other settings are those of bench/common/record.sh.
set -euo pipefail
cd "$(dirname "$0")"
. ../common/record.sh
# Thousands of connections, at the servers as well.
ulimit -n "$(ulimit -Hn)"
etcd_version=${BENCH_ETCD_VERSION:-v3.7.3}

# A current etcd, built once into the cache. A module of its own is made around it, since `go
# install` refuses modules with replacements.
current_etcd() {
  local program=$cache/etcd-$etcd_version
  if [ "$etcd_version" != none ] && [ ! -x "$program" ] && command -v go >/dev/null; then
    local module
    module=$(mktemp -d)
    (
      cd "$module"
      go mod init onefold/bench
      go get "go.etcd.io/etcd/server/v3@$etcd_version"
      mkdir -p "$cache"
      go build -trimpath -ldflags '-s -w' -o "$program" go.etcd.io/etcd/server/v3
    ) >&2 || echo "etcd $etcd_version cannot be built; it is left out" >&2
    rm -r "$module"
  fi
  [ ! -x "$program" ] || echo "$program"
}

# ZooKeeper from the system's packages; nothing where there is none.
zookeeper_jar() {
  local jar=/usr/share/java/zookeeper.jar
  [ -e "$jar" ] && command -v java >/dev/null || install_package zookeeper
  [ ! -e "$jar" ] || ! command -v java >/dev/null || echo "$jar"
}

# Runs one program on all servers that are there.
measure() {
  local name=$1 servers=() program jar
  build
  servers=(--onefold "$(onefold_program)")
  for program in $(current_etcd) $(etcd_program); do
    servers+=(--etcd "$program")
  done
  jar=$(zookeeper_jar)
  [ -z "$jar" ] || servers+=(--zookeeper "$jar")
  record "kv-$name" "$(target)/release/onefold-bench-kv" "$name" --data-dir "$data" \
    "${servers[@]}" $extra
}

programs=(puts ranges mixed offered keyspaces watch lease memory)
[ $# -gt 0 ] || set -- all
for name; do
  case " ${programs[*]} all " in
    *" $name "*) ;;
    *) echo "unknown: $name; one of ${programs[*]}, all" >&2; exit 2 ;;
  esac
  if [ "$name" = all ]; then
    for each in "${programs[@]}"; do measure "$each"; done
  else
    measure "$name"
  fi
done
