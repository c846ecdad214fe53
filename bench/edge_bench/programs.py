"""Programs that do not depend on a bundle's bank, lowered once on this machine: minutes for the paper's anchors."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import edge_export

if TYPE_CHECKING:
    from edge_pretrain.model import AnchorConfig

Report = Callable[[str], None]


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edge-runtime/programs"


def _key(**what: object) -> str:
    """Of a program: what it is made of, the exporter's sources and the versions it is lowered with."""
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    for name in ("torch", "torchao", "executorch"):
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    for path in sorted(Path(next(iter(edge_export.__path__))).glob("*.py")):
        if path.name in ("decoder.py", "quantize.py", "executorch.py", "embedder.py", "ops.py"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    path = cache_directory() / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{name}.{os.getpid()}.partial")
        try:
            make(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def cached_program(config: AnchorConfig, dtype: str, max_prefill: int, seed: int, report: Report) -> Path:
    """The paged program of an anchor with random weights, memory in every layer."""

    def make(path: Path) -> None:
        import torch

        from edge_export.decoder import PagedDecoder
        from edge_export.executorch import export_paged
        from edge_export.openlm import from_anchor
        from edge_export.quantize import quantize_decoder
        from edge_export.quiet import quiet_libraries
        from edge_pretrain.model import Anchor

        report(f"anchor.paged.pte: lowering {config.layers} layers to XNNPACK, {dtype}: minutes, once")
        anchor = Anchor(config)
        anchor.initialize(torch.Generator().manual_seed(seed))
        decoder = from_anchor(anchor)
        del anchor
        with quiet_libraries():
            quantize_decoder(decoder, dtype)
            export_paged(PagedDecoder(decoder, tuple(range(config.layers))), max_prefill, path)

    key = _key(anchor=asdict(config), dtype=dtype, max_prefill=max_prefill, seed=seed)
    return _cached(f"anchor-{key}.pte", make)


def cached_embedder(report: Report) -> tuple[Path, Path]:
    """all-MiniLM-L6-v2 as a program, and its tokenizer."""
    from edge_pretrain.embed import EMBEDDER_ID, MiniLM

    def make(path: Path) -> None:
        from edge_export.embedder import export_embedder
        from edge_export.quiet import quiet_libraries

        report("router/minilm.pte: lowering all-MiniLM-L6-v2 to XNNPACK, once")
        with quiet_libraries():
            export_embedder(MiniLM(None), False, path)

    def copy(path: Path) -> None:
        shutil.copyfile(MiniLM(None).tokenizer_json, path)

    key = _key(embedder=EMBEDDER_ID)
    return _cached(f"minilm-{key}.pte", make), _cached(f"minilm-{key}.tokenizer.json", copy)
