#!/usr/bin/env bash
# scripts/bench.sh: RingDB beside Redis and Redis Cluster on this machine, in one table.
#
#   scripts/bench.sh [--smoke] [--rounds N] [--seconds N] [--only PATTERN]
#
# Starts its own servers on ports 18001 and up, in a directory of its own, and stops exactly these.
# Every round runs every row once, so that a busy moment hits all alike; the table shows each row's
# round with the least processor time. 100-byte values, 100,000 keys, 50 connections unless said
# otherwise. Durability is the same everywhere but in the row `sync`: what is acknowledged survives
# kill -9 (os; appendonly everysec). Compare CPU-µs/op; operations a second share the machine with the
# load generator.
#
#   RINGD, LOAD    the programs (default: the release build, built if missing)
#   BENCH_DIR      where data are put (default: below the target directory; not a RAM disk)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
ringd="${RINGD:-$target/release/ringd}"
load="${LOAD:-$target/release/examples/load}"
rounds=3 seconds=5 keys=100000 only=. smoke=""
while [ "$#" -gt 0 ]; do
    case "$1" in
        --smoke) smoke=yes rounds=1 seconds=0.5 keys=5000 ;;
        --rounds) rounds="$2"; shift ;;
        --seconds) seconds="$2"; shift ;;
        --only) only="$2"; shift ;;
        *) echo "error: no option is called $1" >&2; exit 2 ;;
    esac
    shift
done
if [ ! -x "$ringd" ] || [ ! -x "$load" ]; then
    cargo build --release -p ringdb-node --bin ringd --example load
fi
for program in redis-server redis-cli redis-benchmark; do
    command -v "$program" >/dev/null || { echo "error: $program is missing (packages redis-server, redis-tools)" >&2; exit 2; }
done

dir="${BENCH_DIR:-$target/bench}/run-$$"
mkdir -p "$dir"
dir="$(cd "$dir" && pwd)"
started=()
# Stops what was started here, by its pid; a demo stops its nodes itself.
cleanup() {
    local pid
    for pid in "${started[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap cleanup EXIT

# Waits until a command succeeds.
until_true() {
    local what="$1" tries=600
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "error: $what did not come up" >&2; exit 1; }
        sleep 0.1
    done
}

declare -A pids addresses extra
start_demo() {
    local name="$1" nodes="$2" base="$3" i list=""
    "$ringd" demo --nodes "$nodes" --base-port "$base" --data-dir "$dir/$name" >"$dir/$name.out" 2>&1 &
    started+=("$!")
    until_true "the demo $name" grep -q '^ready' "$dir/$name.out"
    for i in $(seq "$nodes"); do list+=",127.0.0.1:$((base + i))"; done
    addresses[$name]="${list#,}"
    pids[$name]="$(tr -s ' ' ',' <"/proc/$!/task/$!/children" | sed 's/,$//')"
    extra[$name]=""
}
start_redis() {
    local name="$1" port="$2"
    shift 2
    mkdir -p "$dir/$name-$port"
    redis-server --port "$port" --bind 127.0.0.1 --dir "$dir/$name-$port" --save '' --appendonly yes \
        --appendfsync everysec "$@" >"$dir/$name-$port.out" 2>&1 &
    started+=("$!")
    pids[$name]="${pids[$name]:+${pids[$name]},}$!"
    until_true "redis on $port" redis-cli -p "$port" ping
}

start_demo ring3 3 18000
start_demo ring5 5 18020
start_redis redis 18600
addresses[redis]=127.0.0.1:18600 extra[redis]=""
start_redis redis-sync 18601 --appendfsync always
addresses[redis-sync]=127.0.0.1:18601 extra[redis-sync]=""
nodes=""
for port in $(seq 18610 18618); do
    start_redis cluster "$port" --cluster-enabled yes --cluster-node-timeout 5000
    nodes+=" 127.0.0.1:$port"
done
# shellcheck disable=SC2086 # a list of addresses
redis-cli --cluster create $nodes --cluster-replicas 2 --cluster-yes >"$dir/create.out" 2>&1 ||
    { cat "$dir/create.out" >&2; exit 1; }
until_true "the Redis Cluster" sh -c "redis-cli -p 18610 cluster info | grep -q cluster_state:ok"
addresses[cluster]=127.0.0.1:18610 extra[cluster]=--cluster

# name | servers | its peer in the column `ratio` | options of load
rows() {
    cat <<'ROWS'
SET QUORUM P1|ring3|cluster SET+WAIT 1 P1|--mode set
SET QUORUM P16|ring3|redis SET P16|--mode set --pipeline 16
SET ONE P1|ring3|cluster SET P1|--mode set --level ONE
SET ONE P16|ring3|redis SET P16|--mode set --level ONE --pipeline 16
GET QUORUM P1|ring3|redis GET P1|--mode get
GET QUORUM P16|ring3|redis GET P16|--mode get --pipeline 16
GET ONE P1|ring3|redis GET P1|--mode get --level ONE
GET ONE P16|ring3|redis GET P16|--mode get --level ONE --pipeline 16
INCR QUORUM P1|ring3|redis INCR P1|--mode incr
INCR QUORUM P16|ring3|redis INCR P16|--mode incr --pipeline 16
SET QUORUM P1, half of that rate|ring3||--mode set --rate half:SET_QUORUM_P1
GET QUORUM P1, half of that rate|ring3||--mode get --rate half:GET_QUORUM_P1
SET QUORUM P16, half of that rate|ring3||--mode set --pipeline 16 --rate half:SET_QUORUM_P16
SET QUORUM sync c256|ring3|redis SET always c256|--mode set --with d=sync --connections 256
5 nodes SET QUORUM P1|ring5|cluster SET+WAIT 1 P1|--mode set
5 nodes SET QUORUM P16|ring5|redis SET P16|--mode set --pipeline 16
5 nodes GET QUORUM P1|ring5|redis GET P1|--mode get
5 nodes GET QUORUM P16|ring5|redis GET P16|--mode get --pipeline 16
redis SET P1|redis||--mode set
redis SET P16|redis||--mode set --pipeline 16
redis SET P16, half of that rate|redis||--mode set --pipeline 16 --rate half:redis_SET_P16
redis GET P1|redis||--mode get
redis GET P16|redis||--mode get --pipeline 16
redis INCR P1|redis||--mode incr
redis INCR P16|redis||--mode incr --pipeline 16
redis SET always c256|redis-sync||--mode set --connections 256
cluster SET P1|cluster||--mode set
cluster SET+WAIT 1 P1|cluster||--mode set-wait
cluster GET P1|cluster||--mode get
ROWS
}

for name in ring3 ring5 redis cluster; do
    # shellcheck disable=SC2086 # options
    "$load" --addr "${addresses[$name]}" ${extra[$name]} --mode fill --keys "$keys" --pipeline 16 --name "fill $name"
done

# Ticks of processor time of processes.
ticks() {
    local pid sum=0 stat fields
    for pid in ${1//,/ }; do
        stat="$(<"/proc/$pid/stat")"
        read -ra fields <<<"${stat##*) }"
        sum=$((sum + fields[11] + fields[12]))
    done
    echo "$sum"
}

# Half of the operations a second that a row reached last, `_` standing for blanks; nothing if it did
# not run.
half_of() {
    local row="${1//_/ }"
    awk -F'|' -v row="$row" '$2 == row { split($3, parts, "ops/s="); split(parts[2], n, " "); rate = n[1] / 2 } END { if (rate > 0) printf "%d", rate }' "$dir/results"
}

touch "$dir/results"
failed=""
for round in $(seq "$rounds"); do
    while IFS='|' read -r name servers _ options; do
        [[ "$name" =~ $only ]] || continue
        if [[ "$options" =~ half:([^ ]+) ]]; then
            rate="$(half_of "${BASH_REMATCH[1]}")"
            [ -n "$rate" ] || continue
            options="${options/half:${BASH_REMATCH[1]}/$rate}"
        fi
        # shellcheck disable=SC2086 # options
        line="$("$load" --addr "${addresses[$servers]}" ${extra[$servers]} --pids "${pids[$servers]}" \
            --keys "$keys" --seconds "$seconds" --name "$round|$name|" $options 2>"$dir/error" </dev/null)" ||
            { failed+=" [$name: $(tail -n 1 "$dir/error")]"; }
        echo "$line" | tee -a "$dir/results"
    done < <(rows)
    # Redis's own load generator over the same servers, as a check of ours.
    for servers in ring3 redis; do
        for test in set get; do
            for pipeline in 1 16; do
                name="redis-benchmark $servers $test P$pipeline"
                [[ "$name" =~ $only ]] || continue
                count="$(awk -v s="$seconds" -v p="$pipeline" 'BEGIN { print int(s * (p > 1 ? 100000 : 25000)) }')"
                first="${addresses[$servers]%%,*}"
                before="$(ticks "${pids[$servers]}")"
                csv="$(redis-benchmark -h 127.0.0.1 -p "${first##*:}" -t "$test" -n "$count" -c 50 -P "$pipeline" \
                    -d 100 -r "$keys" --csv 2>/dev/null </dev/null | tail -n 1 | tr -d '"')"
                after="$(ticks "${pids[$servers]}")"
                echo "$csv" | awk -F, -v head="$round|$name|" -v t=$((after - before)) -v n="$count" \
                    '{ printf "%s ops/s=%.0f p50_ms=%.2f p99_ms=%.2f ops=%d errors=0 misses=0 cpu_us_per_op=%.2f\n", head, $2, $5, $7, n, t * 10000 / n }' |
                    tee -a "$dir/results"
            done
        done
    done
done

echo
echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo none), $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $rounds rounds of $seconds s; the round with the least CPU of each row"
rows | awk -F'|' -v results="$dir/results" '
    function value(line, key,    parts) { split(line, parts, key "="); split(parts[2], parts, " "); return parts[1] + 0 }
    BEGIN {
        while ((getline line < results) > 0) {
            split(line, head, "|"); cpu = value(line, "cpu_us_per_op")
            if (!(head[2] in best) || cpu < best[head[2]]) { best[head[2]] = cpu; text[head[2]] = line }
            if (!(head[2] in seen)) { seen[head[2]] = 1; order[++count] = head[2] }
        }
        printf "%-32s %10s %8s %8s %10s   %s\n", "", "ops/s", "p50 ms", "p99 ms", "CPU-us/op", "ratio of CPU"
    }
    { peer[$1] = $3 }
    END {
        for (i = 1; i <= count; i++) {
            name = order[i]; line = text[name]; ratio = ""
            if (peer[name] in best && best[peer[name]] > 0) ratio = sprintf("%.2f x %s", best[name] / best[peer[name]], peer[name])
            printf "%-32s %10d %8.2f %8.2f %10.2f   %s\n", name, value(line, "ops/s"), value(line, "p50_ms"), value(line, "p99_ms"), best[name], ratio
        }
    }'
if [ -n "$failed" ]; then
    echo "FAILED:$failed" >&2
    exit 1
fi
