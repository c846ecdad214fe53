#!/usr/bin/env bash
# clang-tidy over our C++, with the compile commands of the tests' build tree.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/tests
cmake -S . -B "$build" -G Ninja -DEDGE_BUILD_TESTS=ON -DEDGE_WERROR=ON >/dev/null
# Only what is compiled here: kernels of another processor's instruction set have headers that refuse this one.
find edge_runtime/cpp/src bench/cpp -path bench/cpp/python -prune -o -name '*.cc' -print0 |
  { while IFS= read -r -d '' file; do ! grep -q "/$file\"" "$build/compile_commands.json" || printf '%s\0' "$file"; done; } |
  xargs -0 -n 4 -P "${JOBS:-2}" .venv/bin/clang-tidy -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option
