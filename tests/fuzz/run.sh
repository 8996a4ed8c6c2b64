#!/usr/bin/env bash
# run.sh SECONDS FUZZER...: runs each fuzzer for a time, over its kept corpus (tests/fuzz/corpus/NAME) and a scratch one.
set -euo pipefail
seconds=$1
shift
passed=0
failed=0
for fuzzer in "$@"; do
    corpus=tests/fuzz/corpus/$fuzzer
    scratch=build/fuzz/corpus/$fuzzer
    mkdir -p "$scratch" "build/fuzz/found"
    kept=()
    [ -d "$corpus" ] && kept=("$corpus")
    if "build/fuzz/$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/found/$fuzzer-" "$scratch" "${kept[@]}" >"build/fuzz/$fuzzer.log" 2>&1; then
        passed=$((passed + 1))
        printf 'fuzz: %-20s %s runs in %s s\n' "$fuzzer" \
            "$(awk '/stat::number_of_executed_units/ {print $2}' "build/fuzz/$fuzzer.log")" "$seconds"
    else
        failed=$((failed + 1))
        printf 'fuzz: %-20s FAILED\n' "$fuzzer"
        tail -n 40 "build/fuzz/$fuzzer.log"
    fi
done
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
