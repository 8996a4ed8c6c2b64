#!/usr/bin/env bash
# keep.sh FUZZER...: makes tests/fuzz/corpus/NAME anew from the first inputs (seeds.c) and from what runs have found
# (build/fuzz/corpus/NAME), minimised: the smallest set that covers the same edges, of small inputs only.
set -euo pipefail
bytes_max=600 # of an input; a longer one rarely shows more
TMPDIR=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/hotwarm-fuzz-XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

build/fuzz/seeds "$TMPDIR/seeds"
for name in "$@"; do
    mkdir -p "$TMPDIR/kept/$name" "$TMPDIR/seeds/$name" "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name"
    "build/fuzz/$name" -set_cover_merge=1 -max_len=$bytes_max "$TMPDIR/kept/$name" "$TMPDIR/seeds/$name" \
        "tests/fuzz/corpus/$name" "build/fuzz/corpus/$name" >"build/fuzz/$name.keep.log" 2>&1 ||
        { tail -n 30 "build/fuzz/$name.keep.log"; exit 1; }
    rm -rf "tests/fuzz/corpus/$name"
    mv "$TMPDIR/kept/$name" "tests/fuzz/corpus/$name"
    printf 'keep: %-18s %4s inputs, %s bytes\n' "$name" "$(find "tests/fuzz/corpus/$name" -type f | wc -l)" \
        "$(cat "tests/fuzz/corpus/$name"/* | wc -c)"
done
