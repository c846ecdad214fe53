"""The anchor that blocks are trained against: a checkpoint's, or the f32 or f16 native one of the bundle itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from edge_pretrain import checkpoint
from edge_pretrain.checkpoint import CheckpointError
from edge_pretrain.model import Anchor, AnchorConfig
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadFormatError, InvalidArgumentError, UnsupportedError

EXACT = ("f32", "f16", "bf16")


def load_anchor(bundle: Bundle, source: Path | None) -> tuple[Anchor, str]:
    """The anchor, and a line that says where its weights came from.

    source: the training checkpoint; None takes the bundle's own native anchor.

    Raises:
        UnsupportedError: no weights to train against; the message says how to get some.
        InvalidArgumentError: the checkpoint is another model's.
        BadFormatError: it is damaged.
    """
    try:
        config = AnchorConfig.from_manifest(vars(bundle.manifest.anchor))
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedError(f"{bundle.directory}: teaching knows OpenLM anchors only ({error})") from None
    if source is not None:
        return _from_checkpoint(bundle, source, config), f"anchor: {source}, f32"
    for program in bundle.manifest.programs:
        if program.engine == "native" and program.dtype in EXACT:
            path = bundle.path_of(program.path)
            return _from_native(path, config), f"anchor: {path}, {program.dtype}"
    raise UnsupportedError(
        f"{bundle.directory}: it carries no f32, f16 or bf16 native anchor to train against: give --checkpoint, "
        "or export one with `edge-runtime export --to native --anchor-dtype f32`"
    )


def _from_checkpoint(bundle: Bundle, source: Path, config: AnchorConfig) -> Anchor:
    try:
        loaded = checkpoint.load(source)
    except CheckpointError as error:
        raise BadFormatError(str(error)) from None
    made = bundle.manifest.provenance.get("checkpoint")
    if loaded.anchor.config != config or (made and made != loaded.config.get("provenance")):
        raise InvalidArgumentError(f"{source}: {bundle.directory} was not exported from this checkpoint")
    return loaded.anchor.requires_grad_(False)


def _from_native(path: Path, config: AnchorConfig) -> Anchor:
    with safe_open(path, framework="pt") as file:
        stored: dict[str, Tensor] = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    with torch.device("meta"):
        anchor = Anchor(config)
    try:
        state = anchor_state(stored, config)
        anchor.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError) as error:
        raise BadFormatError(f"{path}: not this bundle's anchor ({' '.join(str(error).split())})") from None
    return anchor.eval().requires_grad_(False)


def anchor_state(stored: dict[str, Tensor], config: AnchorConfig) -> dict[str, Any]:
    """The anchor's state out of the tensors of docs/native-format.md."""
    state = {"tok_embeddings.weight": stored["embedding"], "norm.weight": stored["norm"]}
    if not config.tied_embeddings:
        state["output.weight"] = stored["head"]
    for index in range(config.layers):
        at, to = f"layers.{index}.", f"layers.{index}."
        q, k, v = stored[at + "qkv"].chunk(3)
        state |= {
            to + "attention_norm.weight": stored[at + "attention_norm"],
            to + "attention.wq.weight": q.contiguous(),
            to + "attention.wk.weight": k.contiguous(),
            to + "attention.wv.weight": v.contiguous(),
            to + "attention.wo.weight": stored[at + "attention_out"],
            to + "attention.q_norm.weight": stored[at + "q_norm"],
            to + "attention.k_norm.weight": stored[at + "k_norm"],
            to + "ffn_norm.weight": stored[at + "ffn_norm"],
            to + "feed_forward.w1.weight": stored[at + "gate"],
            to + "feed_forward.w2.weight": stored[at + "up"],
            to + "feed_forward.w3.weight": stored[at + "down"],
        }
    return state
