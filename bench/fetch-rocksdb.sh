#!/usr/bin/env bash
# fetch-rocksdb.sh: gets a released build of RocksDB by Maven and prints the path of its library.
#
#   export RINGDB_ROCKSDB_SO="$(bench/fetch-rocksdb.sh)"
#
# Compiling RocksDB takes half an hour; the package for Java holds a release build whose shared
# library exports the C interface. Without mvn or python3 it says so and exits with 3.
set -euo pipefail

readonly VERSION=10.10.1.1
readonly NAME="librocksdbjni-linux64.so"
cd "$(dirname "${BASH_SOURCE[0]}")"
readonly TARGET="${CARGO_TARGET_DIR:-$PWD/target}/rocksdb-$VERSION"

skip() { printf 'SKIPPED: %s: RocksDB is not measured\n' "$*" >&2; exit 3; }

if [ ! -s "$TARGET/$NAME" ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] || skip "the build is for Linux on x86-64"
    jar="$HOME/.m2/repository/org/rocksdb/rocksdbjni/$VERSION/rocksdbjni-$VERSION-linux64.jar"
    if [ ! -s "$jar" ]; then
        command -v mvn >/dev/null || skip "mvn is missing"
        mvn -q -B dependency:get -Dartifact="org.rocksdb:rocksdbjni:$VERSION:jar:linux64" \
            -Dtransitive=false >&2 || skip "mvn cannot get rocksdbjni $VERSION"
    fi
    command -v python3 >/dev/null || skip "python3, which unpacks it, is missing"
    mkdir -p "$TARGET"
    python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' \
        "$jar" "$NAME" "$TARGET"
fi
printf '%s\n' "$TARGET/$NAME"
