"""The same weights in llama.cpp and in the native engine: one loss in f32, and near it where they are quantised."""

from __future__ import annotations

from pathlib import Path

import pytest
from peers_toy import needs_llama_cpp

from edge_bench import llama_loss


@needs_llama_cpp
def test_both_tell_the_same_of_the_same_weights(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = llama_loss.measure(tiny_checkpoint, 2, 3, tmp_path)
    assert [(row["runtime"], row["bits"]) for row in rows] == [
        (runtime, bits) for bits in (32, 8, 4) for runtime in ("llama.cpp", "native")
    ]
    llama, native, *quantised = (row["perplexity"] for row in rows)
    assert llama == pytest.approx(native, rel=1e-4)
    assert quantised == pytest.approx([llama] * 4, rel=0.1)
    assert quantised[0] != llama
    text = llama_loss.markdown(
        {"rows": rows, "steps": 3, "command": "a command", "revision": "1", "seconds": 1.0}
    )
    assert text.count("| llama.cpp |") == text.count("| native |") == 3
