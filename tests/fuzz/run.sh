#!/usr/bin/env bash
# run.sh SECONDS FUZZER...: runs each fuzzer for a time, JOBS at once, beginning with its kept corpus
# (tests/fuzz/corpus/NAME); what is new goes to build/fuzz/corpus/NAME, inputs that fail to build/fuzz/found.
set -euo pipefail
seconds=$1
shift

# What a fuzzer keeps in files goes to memory, and away at the end.
TMPDIR=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/hotwarm-fuzz-XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

one() {
    local name=$1 kept=tests/fuzz/corpus/$1 fresh=build/fuzz/corpus/$1 log=build/fuzz/$1.log dict=tests/fuzz/$1.dict
    local args=(-max_total_time="$seconds" -timeout=10 -report_slow_units=2 -rss_limit_mb=2048 -print_final_stats=1)
    local rc=0 found
    mkdir -p "$fresh" build/fuzz/found
    rm -f build/fuzz/found/"$name"-*
    [ ! -f "$dict" ] || args+=(-dict="$dict")
    [ ! -d "$kept" ] || cp -n "$kept"/* "$fresh"/
    "build/fuzz/$name" "${args[@]}" -artifact_prefix="build/fuzz/found/$name-" "$fresh" >"$log" 2>&1 || rc=$?
    found=$(find build/fuzz/found -name "$name-*" | sort | head -n 1)
    local runs cov result=ok
    runs=$(awk '/stat::number_of_executed_units/ {print $2; exit}' "$log")
    cov=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    [ "$rc" = 0 ] && [ -z "$found" ] || result="FAILED"
    printf 'fuzz: %-18s %10s runs  %-11s %s\n' "$name" "${runs:-?}" "${cov:-cov: ?}" "$result"
    if [ "$result" != ok ]; then
        grep -vE 'NEW|REDUCE|pulse' "$log" | tail -n 40
        [ -z "$found" ] || printf 'fuzz: replay with: build/fuzz/%s %s\n' "$name" "$found"
        return 1
    fi
}
export -f one
export seconds

rc=0
printf '%s\n' "$@" | xargs -P "${JOBS:-1}" -I{} bash -euc 'one {}' || rc=1
[ "$rc" = 0 ] || echo "fuzz: at least one fuzzer failed"
exit "$rc"
