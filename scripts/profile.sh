#!/usr/bin/env bash
# scripts/profile.sh: where a node's time goes under load, and what an operation asks of the system.
#
#   scripts/profile.sh counts
#   scripts/profile.sh [set|get|incr] [further options of the load example, such as --pipeline 16]
#
# `counts` prints one row for SET, GET and INCR at QUORUM and GET at ONE, without pipelining and with
# 16 at a time: what one operation costs, summed over three nodes: processor time; system calls and
# switches that a thread asked for, that is wake-ups (perf); pieces and bytes of memory (a second
# ringd, built with the feature `count-allocations`); turns and writes of the log.
#
# Otherwise it looks at node n1 alone under one kind of load: context switches for each operation, how
# long a write and an fdatasync of it last (strace), and the functions that cost most (perf).
# Operations are the cluster's: divide by three for those that n1 coordinated.
#
# Starts a demo of three nodes on ports 18101 and up in a directory of its own below the target
# directory. What is not installed is skipped and said.
#
#   RINGD, LOAD      the programs (default: the release build, built if missing)
#   COUNTING         ringd with `count-allocations` (default: built into the target directory)
#   SECONDS_EACH     how long each look takes (default 5)
#   BASE_PORT        where the ports of the demo begin (default 18100)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
ringd="${RINGD:-$target/release/ringd}"
load="${LOAD:-$target/release/examples/load}"
each="${SECONDS_EACH:-5}"
base="${BASE_PORT:-18100}"
mode="${1:-counts}"
[ "$#" -eq 0 ] || shift
if [ ! -x "$ringd" ] || [ ! -x "$load" ]; then
    cargo build --release -p ringdb-node --bin ringd --example load
fi
mkdir -p "$target/bench"
dir="$(mktemp -d "$target/bench/profile-XXXXXX")"
demo=""
stop_demo() {
    if [ -n "$demo" ]; then
        kill -INT "$demo" 2>/dev/null || true
        wait "$demo" || true
        demo=""
    fi
}
cleanup() {
    stop_demo
    rm -rf "$dir"
}
trap cleanup EXIT

addresses="127.0.0.1:$((base + 1)),127.0.0.1:$((base + 2)),127.0.0.1:$((base + 3))"
start_demo() {
    "$1" demo --nodes 3 --base-port "$base" --data-dir "$dir/$2" >"$dir/demo.out" 2>&1 &
    demo=$!
    for _ in $(seq 300); do
        if grep -q '^ready' "$dir/demo.out"; then break; fi
        sleep 0.1
    done
    grep -q '^ready' "$dir/demo.out" || { cat "$dir/demo.out"; exit 1; }
    # Not `read`: the list has no end of line.
    mapfile -t -d " " nodes <"/proc/$demo/task/$demo/children"
    pids="$(IFS=,; echo "${nodes[*]}")"
    "$load" --addr "$addresses" --mode fill --pipeline 16 --name fill >"$dir/fill"
}

ops() { sed -n 's/.* ops=\([0-9]*\).*/\1/p' "$1"; }
value() { sed -n "s/.* $1=\([0-9.]*\).*/\1/p" "$2"; }

if [ "$mode" = counts ]; then
    counting="${COUNTING:-$target/release/ringd-counting}"
    if [ -z "${COUNTING:-}" ]; then
        cargo build --quiet --release -p ringdb-node --bin ringd --features count-allocations
        cp "$target/release/ringd" "$counting"
        # The plain one back in its place: nothing is compiled again.
        cargo build --quiet --release -p ringdb-node --bin ringd
    fi
    # One metric, summed over the nodes.
    metric() {
        local i sum=0 text
        for i in 1 2 3; do
            text="$(python3 -c 'import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())' \
                "http://127.0.0.1:$((base + 200 + i))/metrics")"
            sum=$((sum + $(sed -n "s/^ringdb_$1 //p" <<<"$text")))
        done
        echo "$sum"
    }
    rows="set QUORUM 1;set QUORUM 16;get QUORUM 1;get QUORUM 16;incr QUORUM 1;incr QUORUM 16;get ONE 1;get ONE 16"
    IFS=';' read -ra rows <<<"$rows"
    # No warm-up is left out of a count: it would be counted by one side only.
    measure() {
        "${under[@]}" "$load" --addr "$addresses" --mode "$1" --level "$2" --pipeline "$3" \
            --seconds "$each" --warm-up 0 --pids "$pids" --name x
    }
    under=()
    start_demo "$ringd" plain
    for row in "${rows[@]}"; do
        # shellcheck disable=SC2086 # three words
        set -- $row
        measure "$@" >/dev/null
        before="$(cat $(printf "/proc/%s/task/*/status " "${nodes[@]}") | awk '/^voluntary/ { v += $2 } END { print v }')"
        commits="$(metric log_commits_total)" turns="$(metric turns_total)"
        # perf counts in the nodes for as long as the load runs under it.
        if command -v perf >/dev/null; then
            under=(perf stat -x , -e raw_syscalls:sys_enter -p "$pids" -o "$dir/calls" --)
        fi
        measure "$@" >"$dir/$1-$2-$3"
        under=()
        after="$(cat $(printf "/proc/%s/task/*/status " "${nodes[@]}") | awk '/^voluntary/ { v += $2 } END { print v }')"
        calls="-"
        if command -v perf >/dev/null; then
            calls="$(awk -F, '/sys_enter/ { print $1 }' "$dir/calls")"
        fi
        # The cores publish their own counts once a second.
        sleep 1.1
        echo "$calls $((after - before)) $(($(metric turns_total) - turns)) $(($(metric log_commits_total) - commits))" \
            >"$dir/$1-$2-$3.seen"
    done
    stop_demo
    start_demo "$counting" counting
    for row in "${rows[@]}"; do
        # shellcheck disable=SC2086 # three words
        set -- $row
        measure "$@" >/dev/null
        a="$(metric allocations_total)" r="$(metric reallocations_total)" b="$(metric allocated_bytes_total)"
        measure "$@" >"$dir/$1-$2-$3.counted"
        echo "$(($(metric allocations_total) - a)) $(($(metric reallocations_total) - r)) $(($(metric allocated_bytes_total) - b))" \
            >>"$dir/$1-$2-$3.counted"
    done
    stop_demo
    echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo none), $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $each s each; an operation, summed over three nodes"
    printf '| %-15s | %9s | %12s | %8s | %12s | %12s | %6s | %6s | %7s |\n' "" CPU-us "system calls" wake-ups \
        allocations reallocations bytes turns commits
    echo "|---|---|---|---|---|---|---|---|---|"
    for row in "${rows[@]}"; do
        # shellcheck disable=SC2086 # three words
        set -- $row
        read -r calls wakes turns commits <"$dir/$1-$2-$3.seen"
        read -r allocations reallocations bytes < <(tail -n 1 "$dir/$1-$2-$3.counted")
        awk -v name="${1^^} $2 P$3" -v o="$(ops "$dir/$1-$2-$3")" -v c="$(ops "$dir/$1-$2-$3.counted")" \
            -v cpu="$(value cpu_us_per_op "$dir/$1-$2-$3")" -v calls="$calls" -v wakes="$wakes" \
            -v turns="$turns" -v commits="$commits" -v a="$allocations" -v r="$reallocations" -v b="$bytes" \
            'BEGIN { printf "| %-15s | %9.1f | %12s | %8.3f | %12.1f | %12.1f | %6d | %6.3f | %7.3f |\n", name, cpu, calls == "-" ? "-" : sprintf("%.3f", calls / o), wakes / o, a / c, r / c, b / c, turns / o, commits / o }'
    done
    command -v perf >/dev/null || echo "SKIPPED: system calls, perf is not installed"
    exit 0
fi

start_demo "$ringd" cluster
n1="${nodes[0]}"
run() { "$load" --addr "$addresses" --mode "$mode" --seconds "$each" --pids "$pids" "$@"; }
switches() { cat "/proc/$n1"/task/*/status | awk '/^voluntary/ { v += $2 } /^nonvoluntary/ { n += $2 } END { print v, n }'; }

echo "=== wake-ups of n1"
read -r v0 n0 < <(switches)
run --name "$mode $*" --warm-up 0 "$@" | tee "$dir/run"
read -r v1 n1s < <(switches)
awk -v o="$(ops "$dir/run")" -v v=$((v1 - v0)) -v n=$((n1s - n0)) \
    'BEGIN { printf "voluntary switches %.3f an operation, involuntary %.3f\n", v / o, n / o }'

echo "=== writes of the log of n1, and syncs: how many, how long (strace makes all slower)"
if command -v strace >/dev/null; then
    strace -f -T -q -e trace=pwrite64,fdatasync -p "$n1" -o "$dir/strace" 2>/dev/null & tracer=$!
    sleep 0.3
    run --name "traced" "$@" | tee "$dir/run"
    kill -INT "$tracer" 2>/dev/null || true
    wait "$tracer" || true
    awk 'match($0, /(pwrite64|fdatasync)/) { name = substr($0, RSTART, RLENGTH) }
        match($0, /<[0-9.]+>$/) { took = substr($0, RSTART + 1, RLENGTH - 2) * 1000; n[name]++; sum[name] += took; if (took > most[name]) most[name] = took; if (took > 2) slow[name]++ }
        END { for (name in n) printf "%-10s %7d calls, mean %.3f ms, longest %.1f ms, %d above 2 ms\n", name, n[name], sum[name] / n[name], most[name], slow[name] }' "$dir/strace"
else
    echo "SKIPPED: strace is not installed"
fi

echo "=== functions of n1"
if command -v perf >/dev/null; then
    run --name "sampled" "$@" >"$dir/run" & runner=$!
    if perf record -q -F 499 -p "$n1" -o "$dir/perf" -- sleep "$each" 2>"$dir/perf.err"; then
        perf report -i "$dir/perf" --no-children --percent-limit 1 --stdio -g none 2>/dev/null | grep -v '^#' | grep -v '^$' | head -n 40
    else
        echo "SKIPPED: perf may not record here: $(tail -n 1 "$dir/perf.err")"
    fi
    wait "$runner"
    cat "$dir/run"
else
    echo "SKIPPED: perf is not installed"
fi
