#!/usr/bin/env bash
# Builds the fuzz targets and runs each one. The first finding ends it; the input that made it is named.
#   scripts/fuzz.sh -max_total_time=600     or any other options of libFuzzer
# CXX=clang++-18 chooses another clang.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/fuzz
sources=edge_runtime/cpp/fuzz
cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER="${CXX:-clang++-19}" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DEDGE_FUZZ=ON -DEDGE_SANITIZE=address,undefined >/dev/null
cmake --build "$build" -j "${JOBS:-2}"
mkdir -p "$build/found"
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

fuzz() {
  local target=$1
  shift
  # What a run learns stays in the build tree; the corpus in the sources changes only by hand.
  mkdir -p "$build/corpus/$target"
  "$build/edge_runtime/cpp/fuzz/fuzz_$target" -max_len=8192 -timeout=10 -rss_limit_mb=1024 \
    -dict="$sources/json.dict" -artifact_prefix="$build/found/$target-" -print_final_stats=1 -verbosity=0 "$@" \
    "$build/corpus/$target" "$sources/corpus/$target" &&
    printf 'fuzz: %s: no finding\n' "$target"
}
export -f fuzz
export build sources
# 255 ends xargs at the first finding.
printf '%s\n' native tokenizer bank_level tree manifest block static_embedder |
  xargs -P "${JOBS:-2}" -I {} bash -c 'fuzz "$@" || exit 255' _ {} "$@"
