"""What a program answers with a bank of some dtype: right answers, perplexity, speed."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime import _core
from edge_runtime.bank import LevelReader
from edge_runtime.bundle import Bundle
from edge_runtime.cli.evaluate import Question
from edge_runtime.engines import Context
from edge_runtime.pager import Node
from edge_runtime.runtime import Runtime

DECODED, REPEATS = 64, 5


def with_bank(bundle: Bundle, out: Path, dtypes: dict[int, str]) -> Bundle:
    """The bundle with its bank, of f32, in other dtypes, one a level; what stays is linked, not copied.

    Raises:
        InvalidArgumentError: rows that the dtype cannot hold.
    """
    manifest = json.loads((bundle.directory / "manifest.json").read_text(encoding="utf-8"))
    levels = {level["files"][0]: level for level in manifest["memory"]["levels"]}
    for name in manifest["files"]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if name not in levels:
            os.link(bundle.path_of(name), out / name)
    for name, level in levels.items():
        reader, dtype = LevelReader(bundle.path_of(name)), dtypes[level["level"]]
        spec = reader.spec
        writer = _core.LevelWriter(
            str(out / name),
            spec.level,
            spec.fanout,
            dtype,
            spec.d_model,
            spec.rows_per_block,
            spec.anchor_layers,
            spec.rows,
            spec.kind,
            [(tensor, columns) for tensor, _, columns in spec.tensors],
        )
        for node in reader.nodes():
            writer.append(int(node), reader.read(int(node)))
        writer.finish()
        written = LevelReader(out / name)
        level |= {"dtype": dtype, "block_bytes": written.spec.stride}
        manifest["files"][name] |= {
            "bytes": (out / name).stat().st_size,
            "sha256": written.tables_sha256(),
        }
    _core.commit_manifest(str(out), json.dumps(manifest))
    return Bundle.open(out)


def discard(bundle: Bundle) -> None:
    shutil.rmtree(bundle.directory)


@dataclass(frozen=True)
class Asked:
    """A held-out question as tokens, and where it is routed."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]  # with the text that stops a generation
    nodes: tuple[Node, ...]
    rare: bool


def asked(runtime: Runtime, questions: Sequence[Question]) -> list[Asked]:
    """Routed once, so that all programs read the same blocks. REQUIRES a router and a stop text."""
    assert runtime.router is not None
    manifest, found = runtime.bundle.manifest, []
    memory, tokens = manifest.memory, manifest.tokens
    assert memory is not None
    bos = [tokens.bos] if tokens.add_bos and tokens.bos is not None else []
    for question in questions:
        prompt, whole = (
            [*bos, *runtime.tokenizer.encode(text)]
            for text in (
                question.prompt,
                f"{question.prompt} {question.answer}{manifest.generation.stop[0]}",
            )
        )
        assert whole[: len(prompt)] == prompt, "the prompt's tokens are those of the text's beginning"
        nodes = [
            node for node in runtime.router.route(question.prompt).nodes if memory.level(node[0]) is not None
        ]
        found.append(Asked(tuple(prompt), tuple(whole[len(prompt) :]), tuple(nodes), question.rare))
    return found


def answers(runtime: Runtime, questions: Sequence[Asked], texts: int) -> dict[str, float]:
    """accuracy: greedy answers that are exactly right, of all and of the rarest fifth; perplexity: of the tokens of the
    first `texts` questions, answers included, each given all before it. With the memory that was fetched."""
    assert runtime.pager is not None
    context, lease = runtime.engine.new_context(), None
    right: list[bool] = []
    losses: list[float] = []
    for index, question in enumerate(questions):
        lease = runtime.pager.fetch(question.nodes, lease)
        context.reset()
        one_by_one = index < texts
        first = 1 if one_by_one else len(question.prompt)
        ids = np.array(question.prompt + question.answer, np.int64)
        logits = [context.forward(ids[:first], lease.handle)]
        logits += [context.forward(ids[at : at + 1], lease.handle) for at in range(first, len(ids) - 1)]
        right.append(
            all(
                int(one.argmax()) == token
                for one, token in zip(logits[-len(question.answer) :], question.answer, strict=True)
            )
        )
        if one_by_one:
            losses += [loss(one, token) for one, token in zip(logits, ids[1:], strict=True)]
    if lease is not None:
        lease.release()
    rare = [good for good, question in zip(right, questions, strict=True) if question.rare]
    return {
        "accuracy": statistics.mean(right),
        "accuracy_rare": statistics.mean(rare) if rare else math.nan,
        "perplexity": math.exp(statistics.mean(losses)),
    }


def loss(logits: npt.NDArray[np.float32], token: int) -> float:
    """Nats."""
    shifted = logits.astype(np.float64) - logits.max()
    return float(np.log(np.exp(shifted).sum()) - shifted[token])


def decode_speed(runtime: Runtime, question: Asked) -> dict[str, float]:
    """Tokens a second, one by one behind the question's prompt, with its memory: the median and the best of several."""
    assert runtime.pager is not None
    context = runtime.engine.new_context()
    with runtime.pager.fetch(question.nodes) as lease:
        speeds = sorted(_decode(context, question, lease.handle) for _ in range(REPEATS))
    return {"decode_tokens_per_s": speeds[REPEATS // 2], "best_decode_tokens_per_s": speeds[-1]}


def _decode(context: Context, question: Asked, handle: int) -> float:
    context.reset()
    logits = context.forward(np.array(question.prompt, np.int64), handle)
    count = min(DECODED, context.context_length - context.position)
    start = time.perf_counter()
    for _ in range(count):
        logits = context.forward(np.array([logits.argmax()], np.int64), handle)
    return count / (time.perf_counter() - start)


def sizes(runtime: Runtime, program: Any) -> dict[str, int]:
    memory = runtime.bundle.manifest.memory
    assert memory is not None
    return {
        "program_bytes": runtime.bundle.bytes_of(program),
        "bank_bytes": runtime.bundle.bank_bytes,
        "fetched_bytes": sum(level.block_bytes for level in memory.levels if level.level),
    }
