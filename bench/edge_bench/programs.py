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
    from edge_bench.banks import BankConfig
    from edge_pretrain.model import Anchor, AnchorConfig

Report = Callable[[str], None]
ENTRY = "entry.json"
"""What the manifest says of a cached folder's program."""


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edge-runtime/programs"


EXECUTORCH = ("decoder.py", "quantize.py", "executorch.py", "embedder.py", "ops.py")
ONNX = ("embedder.py", "model.py", "onnx.py", "onnx_quantize.py", "portable.py", "programs.py")


def _key(sources: tuple[str, ...] = EXECUTORCH, **what: object) -> str:
    """Of a program: what it is made of, the exporter's sources and the versions it is lowered with."""
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    for name in ("torch", "onnx", "onnxscript") if sources is ONNX else ("torch", "torchao", "executorch"):
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    for path in sorted(Path(next(iter(edge_export.__path__))).glob("*.py")):
        if path.name in sources:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """A file or a folder."""
    path = cache_directory() / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{name}.{os.getpid()}.partial")
        try:
            make(partial)
            partial.replace(path)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial)
            partial.unlink(missing_ok=True)
    return path


def random_anchor(config: AnchorConfig, seed: int) -> Anchor:
    import torch

    from edge_pretrain.model import Anchor

    anchor = Anchor(config)
    anchor.initialize(torch.Generator().manual_seed(seed))
    return anchor


def cached_program(config: AnchorConfig, dtype: str, max_prefill: int, seed: int, report: Report) -> Path:
    """The paged program of an anchor with random weights, memory in every layer."""

    def make(path: Path) -> None:
        from edge_export.decoder import PagedDecoder
        from edge_export.executorch import export_paged
        from edge_export.openlm import from_anchor
        from edge_export.quantize import quantize_decoder
        from edge_export.quiet import quiet_libraries

        report(f"anchor.paged.pte: lowering {config.layers} layers to XNNPACK, {dtype}: minutes, once")
        decoder = from_anchor(random_anchor(config, seed))
        with quiet_libraries():
            quantize_decoder(decoder, dtype)
            export_paged(PagedDecoder(decoder, tuple(range(config.layers))), max_prefill, path)

    key = _key(anchor=asdict(config), dtype=dtype, max_prefill=max_prefill, seed=seed)
    return _cached(f"anchor-{key}.pte", make)


def cached_onnx(
    config: AnchorConfig, bank: BankConfig, dtype: str, max_prefill: int, seed: int, report: Report
) -> Path:
    """A folder: the files of an anchor's ONNX program, memory of the bank's dtype in every layer, and ENTRY."""

    def make(path: Path) -> None:
        from edge_bench.synthetic import numbered_tokenizer
        from edge_export.inputs import Inputs, Memories
        from edge_export.openlm import from_anchor
        from edge_export.programs import write_program
        from edge_export.source import ExportConfig
        from edge_pretrain.memories import MemoryConfig

        path.mkdir()
        memory = MemoryConfig(bank.fanout, bank.rows, tuple(range(bank.layers)))
        inputs = Inputs(
            from_anchor(random_anchor(config, seed)),
            config.to_manifest(),
            {},
            numbered_tokenizer(config.vocab_size),
            Memories(memory, path, path),
            {},
        )
        wanted = ExportConfig(
            "", bank.dtype, max_prefill, None, anchor_dtype=dtype, programs=(("onnx", "portable"),)
        )
        entry = write_program(path, inputs, wanted, report)
        (path / ENTRY).write_text(json.dumps(entry), encoding="utf-8")

    what = {"anchor": asdict(config), "rows": bank.rows, "memory": bank.dtype, "dtype": dtype}
    return _cached(f"onnx-{_key(ONNX, max_prefill=max_prefill, seed=seed, **what)}", make)


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
