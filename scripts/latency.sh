#!/usr/bin/env bash
# scripts/latency.sh: the native client beside redis-rs and redis-py, at half of the peak, with and without a node down.
#
#   scripts/latency.sh [--rounds N] [--seconds N] [--peak GET,SET] [--skip-down]
#
# Starts five nodes of its own on ports 18201 and up (N = 3, QUORUM) and stops them. The peak is that of the
# fastest client in a closed loop; then everybody gets half of it in an open loop, where a latency counts
# from when an operation was due, and half of redis-rs's own peak where that is much less. redis-py cannot hold
# that rate in one process: it is measured at half of its own peak, and so are the others at that rate, once more.
# All but the native client ask one coordinator, n1, which keeps three fifths of the keys. Rounds pass through all clients in turn; the round with the middle p99 is shown: the
# least one is luck. Where taskset is, the nodes share core 0 with nobody of ours, and clients have core 1.
#
#   RINGD, RINGCTL    the programs (default: the release build; ringctl with the feature redis-rs)
#   PYTHON            a Python that has the package redis (default: a virtual environment made here)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
ringd="${RINGD:-$target/release/ringd}" ringctl="${RINGCTL:-$target/release/ringctl}"
rounds=3 seconds=4 base="${BASE_PORT:-18200}" down=yes peaks=""
while [ "$#" -gt 0 ]; do
    case "$1" in
        --rounds) rounds="$2"; shift ;;
        --seconds) seconds="$2"; shift ;;
        --peak) peaks="$2"; shift ;;
        --skip-down) down="" ;;
        *) echo "error: no option is called $1" >&2; exit 2 ;;
    esac
    shift
done
if [ -z "${RINGCTL:-}" ]; then cargo build --release -p ringctl --features redis-rs; fi
if [ ! -x "$ringd" ]; then cargo build --release -p ringdb-node --bin ringd; fi
python="${PYTHON:-$target/redis-py/bin/python3}"
if [ ! -x "$python" ] && command -v python3 >/dev/null; then
    { python3 -m venv "$target/redis-py" && "$target/redis-py/bin/pip" install -q redis; } >&2 || python=""
fi
[ -n "$python" ] && "$python" -c 'import redis' 2>/dev/null || { echo "SKIPPED: redis-py cannot be had"; python=""; }

dir="$(mktemp -d "${TMPDIR:-/tmp}/ringdb-latency.XXXXXX")"
demo=""
cleanup() {
    [ -z "$demo" ] || kill -INT "$demo" 2>/dev/null || true
    [ -z "$demo" ] || wait "$demo" 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT
servers=() clients=()
if command -v taskset >/dev/null && [ "$(nproc)" -ge 2 ]; then servers=(taskset -c 0) clients=(taskset -c 1); fi
"${servers[@]}" "$ringd" demo --nodes 5 --base-port "$base" --data-dir "$dir/demo" >"$dir/demo.out" 2>&1 &
demo=$!
tries=300
until grep -q '^ready' "$dir/demo.out" 2>/dev/null; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "error: the nodes did not come up" >&2; exit 2; }
    sleep 0.1
done
pids="$(tr -s ' ' ',' <"/proc/$demo/task/$demo/children" | sed 's/,$//')"
one="127.0.0.1:$((base + 1))"

# Processor time of the nodes, in ticks.
ticks() {
    local pid sum=0 fields stat
    for pid in ${pids//,/ }; do
        [ -r "/proc/$pid/stat" ] || continue
        stat="$(<"/proc/$pid/stat")"
        read -ra fields <<<"${stat##*) }"
        sum=$((sum + fields[11] + fields[12]))
    done
    echo "$sum"
}
# client mode rate -> "ops p50 p99 p999 errors unsent"
measure() {
    local client="$1" mode="$2" rate="$3" to=() paced=() workload=c
    [ "$mode" = get ] || workload=w
    [ -z "$rate" ] || paced=(--rate "$rate")
    if [ "$client" = redis-py ]; then
        "${clients[@]}" "$python" scripts/redis_py.py "$one" "$mode" "$seconds" ${rate:+"$rate"}
        return
    fi
    [ "$client" = native ] || to=(--redis "$one" --driver "$client")
    "${clients[@]}" "$ringctl" --config "$dir/demo/ringctl.toml" -o jsonl bench --workload "$workload" --no-load \
        --distribution uniform --time "${seconds}s" --concurrency 64 "${paced[@]}" "${to[@]}" |
        python3 -c '
import json, sys
rows = [json.loads(line) for line in sys.stdin if line.strip()]
row = next(row for row in rows if "p99_ms" in row)
keys = ("ops_per_second", "p50_ms", "p99_ms", "p999_ms", "errors")
print(*(row[key] for key in keys), row.get("unsent", 0))'
}
echo "five nodes, N = 3, QUORUM; 10,000 records of 1000 B; half of the peak, open loop; commit $(git rev-parse --short HEAD)"
"$ringctl" --config "$dir/demo/ringctl.toml" bench --workload c --time 1s --records 10000 >/dev/null

half() { awk -v p="$1" 'BEGIN { printf "%d", p / 2 }'; }
# Every client once in each round, then the round of each with the middle p99.
compare() {
    local mode="$1" rate="$2" state="$3" client round before after line
    shift 3
    : >"$dir/rows"
    for round in $(seq "$rounds"); do
        for client in "$@"; do
            before="$(ticks)"
            line="$(measure "$client" "$mode" "$rate")" || { echo "error: $client did not run" >&2; continue; }
            after="$(ticks)"
            # Warm-up included: so much was sent while these ticks were spent.
            awk -v l="$line" -v t="$((after - before))" -v s="$seconds" -v c="$client" 'BEGIN {
                split(l, f, " "); printf "%s %s %.1f\n", c, l, t * 10000 / (f[1] * (s + 1)) }' >>"$dir/rows"
        done
    done
    for client in "$@"; do
        awk -v c="$client" '$1 == c' "$dir/rows" | sort -g -k4 | sed -n "$(((rounds + 1) / 2))p" |
            awk -v m="$mode" -v r="$rate" -v s="$state" '{
                printf "| %s | %s | %s | %s | %s | %s | %.2f | %.2f | %.2f | %s | %s | %s |\n",
                    s, m, $1, r, $2, "", $3, $4, $5, $6, $7, $8 }' | sed 's/ |  | / | /'
    done
}
table() {
    local state="$1" mode peak_native peak_rs peak_py peak
    for mode in get set; do
        if [ -n "$peaks" ]; then
            peak="$(cut -d, -f"$([ "$mode" = get ] && echo 1 || echo 2)" <<<"$peaks")"
        else
            peak_native="$(measure native "$mode" "" | cut -d' ' -f1)"
            peak_rs="$(measure redis-rs "$mode" "" | cut -d' ' -f1)"
            peak="$(awk -v a="$peak_native" -v b="$peak_rs" 'BEGIN { print (a > b) ? a : b }')"
            echo "peak of $mode, $state: native $peak_native, redis-rs $peak_rs" >&2
        fi
        compare "$mode" "$(half "$peak")" "$state" native redis-rs own
        # Where the native client can do much more, half of its peak is all of another's: once more at half of that.
        if [ -z "$peaks" ] && awk -v a="$peak" -v b="$peak_rs" 'BEGIN { exit !(a > 1.25 * b) }'; then
            compare "$mode" "$(half "$peak_rs")" "$state" native redis-rs
        fi
        if [ -n "$python" ]; then
            peak_py="$(measure redis-py "$mode" "" | cut -d' ' -f1)"
            echo "peak of $mode, $state: redis-py $peak_py" >&2
            compare "$mode" "$(half "$peak_py")" "$state" native redis-rs redis-py
        fi
    done
}
echo "| nodes | what | client | offered/s | ops/s | p50 ms | p99 ms | p99.9 ms | errors | unsent | CPU-µs/op |"
echo "|---|---|---|---|---|---|---|---|---|---|---|"
table "five up"
if [ -n "$down" ]; then
    # The last: n1 is the coordinator of those that have one.
    kill -KILL "${pids##*,}"
    pids="${pids%,*}"
    sleep 3
    table "n5 down"
fi
