#!/usr/bin/env bash
# run.sh: builds the harness for this processor, gets RocksDB where that is possible, and measures.
#
#   bench/run.sh                      all rows, three rounds, one million keys: some 15 quiet minutes
#   bench/run.sh --smoke              says that the harness works, not how fast anything is
#   bench/run.sh --only fill,get --rounds 5 --keys 500000
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
export CARGO_TARGET_DIR="${BENCH_TARGET_DIR:-$PWD/target}"
if [ -z "${RINGDB_ROCKSDB_SO:-}" ]; then
    # Its message says what is skipped, and so does the harness.
    RINGDB_ROCKSDB_SO="$(./fetch-rocksdb.sh || true)"
    export RINGDB_ROCKSDB_SO
fi
cargo build --release --quiet --locked
exec "$CARGO_TARGET_DIR/release/engines" --directory "$CARGO_TARGET_DIR/stores" \
    --json "$CARGO_TARGET_DIR/engines.json" "$@"
