#!/usr/bin/env bash
# scripts/geonames.sh: runs examples/geonames against a demo cluster of its own, and cleans up.
#
#   scripts/geonames.sh [--slice N] [any other option of examples/geonames/load.py]
#
#   RINGD=PATH      the ringd to run (default: the release build, built if it is missing)
#   BASE_PORT=P     node i uses P+i, P+100+i, P+200+i (default 17500)
#   VENV=DIR        where Python's packages go (default: below the target directory)
#
# Exit code 1: a record was lost, or something else failed; 3: Python's packages are not to be had.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
ringd="${RINGD:-$target/release/ringd}"
venv="${VENV:-$target/geonames-venv}"
if [ ! -x "$ringd" ]; then
    cargo build --release -p ringdb-node --bin ringd
fi
if ! { [ -x "$venv/bin/python" ] || python3 -m venv "$venv"; } ||
    ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r examples/geonames/requirements.txt; then
    echo "SKIPPED: Python's packages of examples/geonames cannot be installed"
    exit 3
fi

dir="$(mktemp -d)"
demo=""
# Stops what this script started, by its pid, whatever happens.
cleanup() {
    if [ -n "$demo" ] && kill -0 "$demo" 2>/dev/null; then
        kill -INT "$demo"
        wait "$demo" || true
    fi
    rm -rf "$dir"
}
trap cleanup EXIT

"$ringd" demo --nodes 3 --base-port "${BASE_PORT:-17500}" --data-dir "$dir/cluster" >"$dir/demo.out" 2>&1 &
demo=$!
for _ in $(seq 600); do
    if grep -q '^ready' "$dir/demo.out"; then break; fi
    kill -0 "$demo" 2>/dev/null || { cat "$dir/demo.out"; exit 1; }
    sleep 0.1
done
grep '^ready' "$dir/demo.out" || { cat "$dir/demo.out"; exit 1; }

status=0
"$venv/bin/python" examples/geonames/load.py --data-dir "$dir/cluster" --stop-restarted "$@" || status=$?
if [ "$status" != 0 ]; then
    tail -n 20 "$dir"/cluster/n*/ringd.log
fi
exit "$status"
