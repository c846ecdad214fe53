"""A Hugging Face model as a frozen anchor: transformers computes it, hooks add the memory where our own anchors do.

FFN memory is added to the FFN's output before a family's own norm of it, KV memory to the heads' outputs; LoRA
changes the products themselves. `edge_export`'s decoder, which makes the programs, adds it at the same places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from edge_pretrain.embed import quiet_imports
from edge_pretrain.hf_folder import AnchorFolder
from edge_pretrain.memory_types import NO_MEMORY, LayerMemory
from edge_pretrain.model import MemoryReader, MemoryRows
from edge_runtime.errors import BadFormatError

# Tables that older checkpoints carry.
IGNORED = "rotary_emb.inv_freq"
PRODUCTS = {
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "w1": "mlp.gate_proj",
    "w2": "mlp.up_proj",
    "w3": "mlp.down_proj",
}


@dataclass(frozen=True)
class AnchorDimensions:
    """`heads` are the queries'."""

    layers: int
    d_model: int
    heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    context_length: int


class HuggingFaceAnchor(MemoryReader):
    """A frozen model. Not thread-safe: hooks find the memory of the call under way in the object."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: nn.Module = model.eval().requires_grad_(False)
        config = model.config
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)
        heads = config.num_attention_heads
        self.config = AnchorDimensions(
            config.num_hidden_layers,
            config.hidden_size,
            heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads,
            config.intermediate_size,
            config.vocab_size,
            config.max_position_embeddings,
        )
        self._memories: dict[int, LayerMemory] = {}
        self._queries: dict[int, Tensor] = {}
        for index, layer in enumerate(model.model.layers):
            self._hook(index, layer)

    @classmethod
    def load(cls, folder: AnchorFolder) -> HuggingFaceAnchor:
        """The anchor in f32. Raises BadFormatError for weights that are damaged or not those of config.json."""
        quiet_imports()
        import transformers

        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        try:
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder.path,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:  # of many types
            reason = " ".join(str(error).split())[:200]
            raise BadFormatError(
                f"{folder.path}: not loadable: {reason}: copy the checkpoint again"
            ) from None
        odd = {*report["missing_keys"], *report["unexpected_keys"]}
        if odd := {name for name in odd if not name.endswith(IGNORED)}:
            name = min(odd)
            wrong = "is missing" if name in report["missing_keys"] else "has no place in its config.json"
            raise BadFormatError(f"{folder.path}: tensor {name} {wrong}: copy the checkpoint again")
        return cls(model)

    def _hook(self, index: int, layer: Any) -> None:
        def memory() -> LayerMemory:
            return self._memories.get(index, NO_MEMORY)

        def projects(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
            def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
                projected = memory().project(name, inputs[0], output)
                if name == "wq":
                    self._queries[index] = projected
                return projected

            return hook

        def attends(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            queries = self._heads(layer.self_attn, self._queries.pop(index))
            remembered = memory().attend(queries, layer.self_attn.scaling)
            heads = inputs[0]
            return (heads if remembered is None else heads + remembered.transpose(1, 2).flatten(2),)

        def adds(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            added = memory().ffn(inputs[0])
            return output if added is None else output + added

        # Before the hook of its product, so that LoRA sees what the product does.
        layer.self_attn.o_proj.register_forward_pre_hook(attends)
        for name, path in PRODUCTS.items():
            layer.get_submodule(path).register_forward_hook(projects(name))
        layer.mlp.register_forward_hook(adds)

    def _heads(self, attention: Any, queries: Tensor) -> Tensor:
        """Queries [B, H, T, head_dim], normalised as the family does, without positions."""
        norm: nn.Module | None = getattr(attention, "q_norm", None)
        each = norm is not None and cast(Tensor, norm.weight).shape[0] == self.config.head_dim
        if norm is not None and not each:
            queries = norm(queries)
        queries = queries.unflatten(-1, (self.config.heads, self.config.head_dim))
        if norm is not None and each:
            queries = norm(queries)
        return queries.transpose(1, 2)

    def hidden(
        self, tokens: Tensor, memory: MemoryRows | None = None, documents: Tensor | None = None
    ) -> Tensor:
        self._memories = {} if memory is None else memory.by_layer()
        # Positions that start again are what transformers tells packed documents by, in every kind of layer.
        positions = None if documents is None else positions_of(documents)
        try:
            found: Tensor = (
                cast(Any, self.model)
                .model(input_ids=tokens, position_ids=positions, use_cache=False)
                .last_hidden_state
            )
        finally:
            self._memories, self._queries = {}, {}
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        found: Tensor = cast(Any, self.model).lm_head(hidden)
        return found if self._cap is None else self._cap * torch.tanh(found / self._cap)


def positions_of(documents: Tensor) -> Tensor:
    """The position of each token within its document, i64 [B, T]."""
    index = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return index - torch.where(starts, index, 0).cummax(dim=1).values
