#!/usr/bin/env bash
# scripts/overload.sh: three nodes are offered three times what they can do; do they hold what is promised?
#
#   scripts/overload.sh [--seconds N] [--only native|redis] [--plant admission-off] [--share 40] [--stops 40-90] [-- OPTIONS]
#
# Starts a cluster of its own on ports 18101 and up and stops it. First native clients, then Redis clients:
# their peak, three times as much, half of it; see node/examples/overload. Where control groups can be made
# (by root, mostly) the nodes together get --share per cent of one core, and the clients go before all others on
# the machine: then whoever asks three times as often has time to do so, and to hear the answers, and it shows
# what the nodes do and not what the clients can. Prints the series and what holds; exit code 1 if something does not.
#
#   --stops LO-HI          now and then, three times a second or so, one of the nodes stands still for LO to HI ms, as
#                          on a machine that others use: nothing may be answered too late then either
#   --plant admission-off  nothing is refused for having waited: this must fail
#   OPTIONS                of the example, for instance --mode get, or --goodput 50 where a machine is noisy: what is
#                          done at the peak then changes from one moment to the next
#   RINGD, OVERLOAD        the programs (default: the release build, built if missing)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
ringd="${RINGD:-$target/release/ringd}"
overload="${OVERLOAD:-$target/release/examples/overload}"
seconds=5 only="native redis" share=40 stops="" base="${BASE_PORT:-18100}"
while [ "$#" -gt 0 ]; do
    case "$1" in
        --seconds) seconds="$2"; shift ;;
        --share) share="$2"; shift ;;
        --stops)
            [[ "$2" =~ ^([1-9][0-9]{0,2})-([1-9][0-9]{0,2})$ ]] && [ "${BASH_REMATCH[1]}" -lt "${BASH_REMATCH[2]}" ] ||
                { echo "error: --stops takes milliseconds as 40-90, and not $2" >&2; exit 2; }
            stops="$2"; shift ;;
        --only) only="$2"; shift ;;
        --plant)
            [ "$2" = admission-off ] || { echo "error: nothing is called $2 that could be planted" >&2; exit 2; }
            export RINGDB__REDIS__QUEUE_MAX_MS=0
            shift ;;
        --) shift; break ;;
        *) echo "error: no option is called $1" >&2; exit 2 ;;
    esac
    shift
done
if [ ! -x "$ringd" ] || [ ! -x "$overload" ]; then
    cargo build --release -p ringdb-node --bin ringd --example overload
fi
dir="$(mktemp -d "${TMPDIR:-/tmp}/ringdb-overload.XXXXXX")"
demo="" group="" clients="" stopper=""
cleanup() {
    [ -z "$stopper" ] || kill "$stopper" 2>/dev/null || true
    [ -z "$stopper" ] || wait "$stopper" 2>/dev/null || true
    [ -z "$demo" ] || kill -INT "$demo" 2>/dev/null || true
    [ -z "$demo" ] || wait "$demo" 2>/dev/null || true
    [ -z "$group" ] || rmdir "$group" "$clients" 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT

# Two control groups: a share of a core for the nodes, in short periods, so that nobody stands still for long,
# and precedence for the clients; nothing if there can be none.
make_groups() {
    local root=/sys/fs/cgroup/cpu name="ringdb-overload-$$"
    if mkdir "$root/$name" 2>/dev/null; then
        group="$root/$name" clients="$root/$name-clients"
        mkdir "$clients"
        echo 10000 >"$group/cpu.cfs_period_us" && echo $((share * 100)) >"$group/cpu.cfs_quota_us"
        echo 8192 >"$group/cpu.shares" && echo 16384 >"$clients/cpu.shares"
        return
    fi
    root=/sys/fs/cgroup
    mkdir "$root/$name" 2>/dev/null || return 1
    group="$root/$name" clients="$root/$name-clients"
    if mkdir "$clients" && echo "$((share * 100)) 10000" >"$group/cpu.max" &&
        echo 800 >"$group/cpu.weight" && echo 1600 >"$clients/cpu.weight"; then
        return
    fi
    rmdir "$group" "$clients" 2>/dev/null
    group="" clients=""
    return 1
}
if make_groups 2>/dev/null; then
    echo "the nodes together have $share % of a core"
else
    echo "SKIPPED: no control group can be made: the nodes share all cores with the clients"
fi
(
    [ -z "$group" ] || echo "$BASHPID" >"$group/cgroup.procs"
    exec "$ringd" demo --base-port "$base" --data-dir "$dir/demo" >"$dir/demo.out" 2>&1
) &
demo=$!
tries=300
touch "$dir/demo.out"
until grep -q '^ready' "$dir/demo.out"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "error: the nodes did not come up" >&2; cat "$dir/demo.out" >&2; exit 2; }
    sleep 0.1
done
pids="$(tr -s ' ' ',' <"/proc/$demo/task/$demo/children" | sed 's/,$//')"

# Whoever is stopped goes on, also if this is the end.
stop_now_and_then() {
    local of=() which lo="${stops%-*}" hi="${stops#*-}" count=0
    IFS=, read -ra of <<<"$pids"
    trap 'kill -CONT "${of[@]}" 2>/dev/null || true; echo "nodes were stopped $count times"' EXIT
    trap exit TERM HUP INT
    while true; do
        which="${of[RANDOM % ${#of[@]}]}"
        kill -STOP "$which" 2>/dev/null || break
        sleep "$(printf '0.%03d' $((lo + RANDOM % (hi - lo))))"
        kill -CONT "$which"
        count=$((count + 1))
        sleep "$(printf '0.%03d' $((RANDOM % 600)))"
    done
}
if [ -n "$stops" ]; then
    stop_now_and_then &
    stopper=$!
fi

failed=0
for kind in $only; do
    if [ "$kind" = native ]; then
        to=(--native "$dir/demo/ringctl.toml")
    else
        to=(--addr "127.0.0.1:$((base + 1)),127.0.0.1:$((base + 2)),127.0.0.1:$((base + 3))")
    fi
    echo "=== $kind clients"
    (
        [ -z "$clients" ] || echo "$BASHPID" >"$clients/cgroup.procs"
        exec timeout 300 "$overload" "${to[@]}" --pids "$pids" --seconds "$seconds" --connections 48 "$@"
    ) || failed=1
done
if [ -n "$stopper" ] && ! kill -0 "$stopper" 2>/dev/null; then
    echo "FAILS: nodes are stopped to the end: one of them was gone" >&2
    failed=1
fi
exit "$failed"
