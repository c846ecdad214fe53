"""What quantisation costs llama.cpp and our native engine on the same weights and the same text.

    python -m edge_bench.llama_loss runs/demo/checkpoint

llama.cpp has no architecture of our anchors' kind, so a model of the demo's dimensions in the architecture `llama` is
trained first, on the questions of the checkpoint that are not asked here; both runtimes then tell the perplexity of the
others, token by token.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from edge_bench import machine
from edge_bench.command import guarded, say, tell
from edge_bench.quantised import loss
from edge_bench.remote import Remote
from edge_bench.report import table
from edge_runtime.cli.evaluate import read_questions
from edge_runtime.cli.main import Parser
from edge_runtime.runtime import Runtime

if TYPE_CHECKING:
    from edge_pretrain.model import AnchorConfig

PROGRAM, SCHEMA = "edge_bench.llama_loss", 1
DTYPES = {"llama.cpp": ("F32", "Q8_0", "Q4_0"), "native": ("f32", "i8", "i4")}
BITS = (32, 8, 4)
BATCH, RATE = 32, 4e-3
NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def texts(checkpoint: Path, asked: int) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens of the questions with their answers: to train on, and to be told the perplexity of."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    tokens = config["tokens"]
    bos = [tokens["bos"]] if tokens["add_bos"] and tokens["bos"] is not None else []
    found = [
        [
            *bos,
            *tokenizer.encode(f"{one.prompt} {one.answer}.", add_special_tokens=False).ids,
        ]
        for one in read_questions(checkpoint / "questions.jsonl", None)
    ]
    step = max(2, len(found) // asked)
    held = set(range(0, len(found), step))
    return [text for index, text in enumerate(found) if index not in held], [
        found[index] for index in sorted(held)
    ]


def train(config: AnchorConfig, given: Sequence[Sequence[int]], steps: int, folder: Path) -> dict[str, Any]:
    """A model of the architecture `llama`, written as a Hugging Face folder; its tensors by name."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.context_length,
            rms_norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
            tie_word_embeddings=True,
        )
    )
    rate = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(rate, RATE, steps)
    order = np.random.default_rng(0)
    for _ in range(steps):
        batch = [given[index] for index in order.integers(0, len(given), BATCH)]
        width = max(map(len, batch))
        ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in batch])
        labels = torch.tensor([[*text, *[-100] * (width - len(text))] for text in batch])
        cast(Any, model)(input_ids=ids, labels=labels).loss.backward()
        rate.step()
        schedule.step()
        rate.zero_grad()
    model.save_pretrained(folder)
    return {name: tensor.detach().float().numpy() for name, tensor in model.state_dict().items()}


class Weights:
    """The tensors under llama.cpp's names."""

    def __init__(self, config: AnchorConfig, tensors: dict[str, Any]) -> None:
        self._config, self._tensors = config, tensors

    def __call__(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        known = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}
        part = name.removesuffix(".weight")
        if part in known:
            values = self._tensors[known[part]]
        else:
            _, layer, kind = part.split(".")
            values = self._tensors[f"model.layers.{layer}.{NAMES[kind]}.weight"]
            if kind in ("attn_q", "attn_k"):
                # It rotates neighbours, and these weights are of a model that rotates the halves of a head.
                heads = values.reshape(self._config.heads, 2, self._config.head_dim // 2, -1)
                values = heads.swapaxes(1, 2).reshape(values.shape)
        assert values.shape == shape
        return np.ascontiguousarray(values)


def _perplexity(losses: Iterator[float]) -> float:
    return math.exp(statistics.mean(losses))


def _llama_cpp(path: Path, config: AnchorConfig, asked: Sequence[Sequence[int]]) -> float:
    with Remote(subject="edge_bench.peers.llama_cpp_worker:LlamaCpp") as worker:
        worker.ask("open", model=str(path), threads=1, context_length=config.context_length)
        return _perplexity(one for text in asked for one in worker.ask("losses", ids=list(text)))


def _native(bundle: Path, asked: Sequence[Sequence[int]]) -> float:
    context = Runtime.open(bundle, engine="native", threads=1).engine.new_context()

    def losses() -> Iterator[float]:
        for text in asked:
            context.reset()
            for token, following in pairwise(text):
                yield loss(context.forward(np.array([token], np.int64), 0), following)

    return _perplexity(losses())


def measure(checkpoint: Path, asked: int, steps: int, scratch: Path) -> list[dict[str, Any]]:
    """Rows (runtime, dtype, bits, bytes, perplexity)."""
    # Here and not above: a record is told where none of them is installed.
    from edge_bench.peers.gguf_files import write_model
    from edge_export.bundle import export_bundle
    from edge_export.source import ExportConfig, Source
    from edge_pretrain.model import AnchorConfig

    anchor = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["anchor"]
    config = AnchorConfig.from_manifest(anchor)
    learnt, told = texts(checkpoint, asked)
    say(PROGRAM, f"training {steps} steps on {len(learnt):,} texts")
    folder = scratch / "llama"
    tensors = train(config, learnt, steps, folder)
    (folder / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
    rows = []
    for bits, gguf, dtype in zip(BITS, DTYPES["llama.cpp"], DTYPES["native"], strict=True):
        path = scratch / f"{gguf}.gguf"
        write_model(path, config, gguf, Weights(config, tensors))
        rows.append(("llama.cpp", gguf, bits, path.stat().st_size, _llama_cpp(path, config, told)))
        bundle = scratch / f"{dtype}.bundle"
        export_bundle(
            Source.open(folder),
            bundle,
            ExportConfig(
                "llama", "f32", 64, None, None, dtype, (("native", "paged"),), config.context_length
            ),
            lambda step: None,
        )
        program = next(bundle.glob("*.native.safetensors"))
        rows.append(("native", dtype, bits, program.stat().st_size, _native(bundle, told)))
        say(PROGRAM, f"{bits} bits: {rows[-2][-1]:.4f} and {rows[-1][-1]:.4f}")
    keys = ("runtime", "dtype", "bits", "bytes", "perplexity")
    found = [dict(zip(keys, row, strict=True)) for row in rows]
    return [row | {"tokens": sum(len(text) - 1 for text in told), "texts": len(told)} for row in found]


def markdown(record: dict[str, Any]) -> str:
    rows = record["rows"]
    base = {row["runtime"]: row["perplexity"] for row in rows if row["bits"] == BITS[0]}
    body = [
        (row["runtime"], row["dtype"], f"{row['bytes'] / 1e3:,.0f}", f"{row['perplexity']:.4f}",
         f"{row['perplexity'] / base[row['runtime']] - 1:+.2%}")
        for row in sorted(rows, key=lambda row: (row["runtime"], -row["bits"]))
    ]  # fmt: skip
    return "\n\n".join(
        [
            f"One model of the architecture `llama` and the demo's dimensions, trained for {record['steps']:,} steps "
            f"on the demo's questions; perplexity of {rows[0]['tokens']:,} tokens of {rows[0]['texts']} others, each "
            "given all before it. All matrices are quantised, embedding and head included.",
            table(("runtime", "weights", "kB", "perplexity", "of f32's"), body),
            f"`{record['command']}`, revision {record['revision']}, {record['seconds']:.0f} s.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description="What quantisation costs llama.cpp and our native engine.")
    parser.add_argument("checkpoint", type=Path, help="what `edge-runtime pretrain` wrote, RUN/checkpoint")
    parser.add_argument(
        "--questions", type=int, default=200, help="that are told the perplexity of (default: 200)"
    )
    parser.add_argument("--steps", type=int, default=1500, help="of training (default: 1500)")
    parser.add_argument("--json", action="store_true", help="print the record instead of the table")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the record there, too")
    typed = machine.command(PROGRAM, arguments)

    def run(parsed: argparse.Namespace) -> int:
        started, load = time.time(), machine.load()
        with tempfile.TemporaryDirectory() as scratch:
            rows = measure(parsed.checkpoint, parsed.questions, parsed.steps, Path(scratch))
        record = {
            "schema": SCHEMA,
            "tool": PROGRAM,
            "steps": parsed.steps,
            "rows": rows,
            **machine.provenance(parsed.checkpoint, load, started, typed),
        }
        tell(record, parsed.json, parsed.save, lambda found: markdown(found) + "\n")
        return 0

    return guarded(parser, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
