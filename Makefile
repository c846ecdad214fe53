# make demo, make test: each does all set-up first. make help lists the rest.
SHELL := /bin/bash
BIN := .venv/bin
EDGE := $(BIN)/edge-runtime
SEED ?= 0
JOBS ?= 2
CPP := $(shell find edge_runtime/cpp bench/cpp cmake -type f) CMakeLists.txt
CPP_SOURCES := $(shell find edge_runtime/cpp bench/cpp -name '*.cc' -o -name '*.h')
STAMP := .venv/.edge-runtime-installed

.PHONY: help setup demo test test-cpp test-python test-arm64 fuzz fuzz-short lint format sanitize reproduce-demo \
  export-matrix wheel clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP)  ## system packages, .venv, the package with its C++ core

$(STAMP): pyproject.toml scripts/setup.sh $(CPP)
	scripts/setup.sh
	@touch $@

demo: $(STAMP)  ## corpus -> tree -> training -> bundle -> answers out of paged memory
	$(EDGE) pretrain --recipe demo --seed $(SEED) -o runs/demo
	$(BIN)/python -m edge_pretrain.router train runs/demo
	$(EDGE) export runs/demo/checkpoint -o runs/demo/demo.bundle
	$(EDGE) evaluate runs/demo/demo.bundle runs/demo/checkpoint/questions.jsonl --limit 24

test: test-cpp test-python  ## all tests but the slow ones

test-cpp: $(STAMP)
	cmake -S . -B build/tests -G Ninja -DEDGE_BUILD_TESTS=ON -DEDGE_WERROR=ON >/dev/null
	cmake --build build/tests -j $(JOBS)
	ctest --test-dir build/tests --no-tests=error --output-on-failure -j $(JOBS)

test-python: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(STAMP)  ## ruff, mypy, clang-format, clang-tidy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)
	scripts/tidy.sh

format: $(STAMP)  ## write what lint asks of the layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES)

sanitize: $(STAMP)  ## the C++ tests under the address, undefined-behaviour and thread sanitizers
	for kind in address,undefined thread; do \
	  cmake -S . -B build/sanitize-$${kind%%,*} -G Ninja -DEDGE_BUILD_TESTS=ON -DEDGE_WERROR=ON \
	    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEDGE_SANITIZE=$$kind >/dev/null && \
	  cmake --build build/sanitize-$${kind%%,*} -j $(JOBS) && \
	  ctest --test-dir build/sanitize-$${kind%%,*} --no-tests=error --output-on-failure -j $(JOBS) || exit 1; \
	done

FUZZ_SECONDS ?= 600
fuzz:  ## libFuzzer on every parser of files, FUZZ_SECONDS each; what it finds stays in build/fuzz/found
	scripts/setup.sh fuzz
	scripts/fuzz.sh -max_total_time=$(FUZZ_SECONDS)

fuzz-short:  ## the same for a few seconds, always with the same seed
	scripts/setup.sh fuzz
	scripts/fuzz.sh -runs=5000 -seed=1

test-arm64:  ## the C++ tests built for 64-bit ARM, run through QEMU with pages of 16 KiB
	scripts/setup.sh arm64
	cmake -S . -B build/arm64 -G Ninja -DEDGE_BUILD_TESTS=ON -DEDGE_WERROR=ON -DBUILD_GMOCK=OFF -DINSTALL_GTEST=OFF \
	  -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DFETCHCONTENT_SOURCE_DIR_GOOGLETEST=/usr/src/googletest >/dev/null
	cmake --build build/arm64 -j $(JOBS)
	ctest --test-dir build/arm64 --no-tests=error --output-on-failure -j $(JOBS)
	@echo "skipped there, and why:"
	@grep -A1 ': Skipped$$' build/arm64/Testing/Temporary/LastTest.log | sed '/: Skipped$$/d; /^--$$/d; s|^/[^ ]*: ||' | \
	  sort | uniq -c

reproduce-demo: $(STAMP)  ## the demo's claim over three seeds, with its controls
	$(BIN)/python -m edge_pretrain.reproduce -o runs/reproduce --seeds 3

export-matrix: $(STAMP)  ## every family through every program: runs/export/matrix.json, docs/export-matrix.md
	$(BIN)/python -m edge_export.matrix

wheel: $(STAMP)  ## dist/*.whl with the ExecuTorch engine, dist/*.tar.gz
	$(BIN)/python -m build --no-isolation

clean:  ## build products; runs/ and .venv stay
	rm -rf build dist
