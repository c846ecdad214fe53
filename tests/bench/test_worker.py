"""The measured process as a command."""

import subprocess
import sys


def test_help_is_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_bench.worker", "--help"], check=True, capture_output=True, text=True
    )
    assert "MODULE:CLASS" in done.stdout
