"""The runtime needs nothing of the benchmarks, and the soak's driver none of the peers."""

import subprocess
import sys

import pytest

ABSENT = "import sys; [sys.modules.__setitem__(name, None) for name in {names!r}]; import {module}"


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("edge_runtime", ["edge_bench", "matplotlib", "mmap_ninja", "torch"]),
        ("edge_bench.soak", ["matplotlib", "mmap_ninja", "torch"]),
        ("edge_bench.iobench", ["matplotlib", "mmap_ninja", "torch"]),  # so that --help works
    ],
)
def test_it_imports_without(module: str, names: list[str]) -> None:
    subprocess.run([sys.executable, "-c", ABSENT.format(names=names, module=module)], check=True)
