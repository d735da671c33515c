#!/usr/bin/env bash
# scripts/profile.sh: where a node's time goes under load: system calls, wake-ups, hot functions.
#
#   scripts/profile.sh [set|get|incr] [further options of the load example, such as --pipeline 16]
#
# Starts a demo of three nodes on ports 18101 and up in a directory of its own, puts load on it, and
# looks at node n1: voluntary and involuntary context switches for each operation, system calls for
# each operation (strace -c -f), and the functions that cost most (perf). What is not installed is
# skipped and said. Operations are the cluster's: divide by three for those that n1 coordinated.
#
#   RINGD, LOAD    the programs (default: the release build, built if missing)
#   SECONDS_EACH   how long each look takes (default 5)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
ringd="${RINGD:-$target/release/ringd}"
load="${LOAD:-$target/release/examples/load}"
each="${SECONDS_EACH:-5}"
mode="${1:-set}"
[ "$#" -eq 0 ] || shift
if [ ! -x "$ringd" ] || [ ! -x "$load" ]; then
    cargo build --release -p ringdb-node --bin ringd --example load
fi
dir="$(mktemp -d)"
demo=""
cleanup() {
    if [ -n "$demo" ]; then
        kill -INT "$demo" 2>/dev/null || true
        wait "$demo" || true
    fi
    rm -rf "$dir"
}
trap cleanup EXIT

"$ringd" demo --nodes 3 --base-port 18100 --data-dir "$dir/cluster" >"$dir/demo.out" 2>&1 &
demo=$!
for _ in $(seq 300); do
    if grep -q '^ready' "$dir/demo.out"; then break; fi
    sleep 0.1
done
grep -q '^ready' "$dir/demo.out" || { cat "$dir/demo.out"; exit 1; }
# Not `read`: the list has no end of line.
mapfile -t -d " " nodes <"/proc/$demo/task/$demo/children"
n1="${nodes[0]}"
addresses=127.0.0.1:18101,127.0.0.1:18102,127.0.0.1:18103
"$load" --addr "$addresses" --mode fill --pipeline 16 --name fill

run() { "$load" --addr "$addresses" --mode "$mode" --seconds "$each" --pids "$(IFS=,; echo "${nodes[*]}")" "$@"; }
ops() { sed -n 's/.* ops=\([0-9]*\).*/\1/p' "$1"; }
switches() { cat "/proc/$n1"/task/*/status | awk '/^voluntary/ { v += $2 } /^nonvoluntary/ { n += $2 } END { print v, n }'; }

echo "=== wake-ups of n1"
read -r v0 n0 < <(switches)
run --name "$mode $*" "$@" | tee "$dir/run"
read -r v1 n1s < <(switches)
awk -v o="$(ops "$dir/run")" -v v=$((v1 - v0)) -v n=$((n1s - n0)) \
    'BEGIN { printf "voluntary switches %.3f an operation, involuntary %.3f (warm-up included in the switches)\n", v / o, n / o }'

echo "=== system calls of n1"
if command -v strace >/dev/null; then
    strace -c -f -p "$n1" -o "$dir/strace" 2>/dev/null & tracer=$!
    sleep 0.3
    run --name "traced (slower)" "$@" | tee "$dir/run"
    kill -INT "$tracer" 2>/dev/null || true
    wait "$tracer" || true
    head -n 14 "$dir/strace"
    awk -v o="$(ops "$dir/run")" '$NF == "total" { printf "%.3f system calls an operation\n", $(NF > 5 ? 4 : 3) / o }' "$dir/strace"
else
    echo "SKIPPED: strace is not installed"
fi

echo "=== functions of n1"
if command -v perf >/dev/null; then
    run --name "sampled" "$@" >"$dir/run" & runner=$!
    if perf record -q -g -F 499 -p "$n1" -o "$dir/perf" -- sleep "$each" 2>"$dir/perf.err"; then
        perf report -i "$dir/perf" --no-children --percent-limit 1 --stdio -g none 2>/dev/null | grep -v '^#' | grep -v '^$' | head -n 40
    else
        echo "SKIPPED: perf may not record here: $(tail -n 1 "$dir/perf.err")"
    fi
    wait "$runner"
    cat "$dir/run"
else
    echo "SKIPPED: perf is not installed"
fi
