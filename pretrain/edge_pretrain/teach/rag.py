"""Retrieval beside memory: the nearest document of the question's leaf, prepended (Pouransari et al. 2025, section 4).

    python -m edge_pretrain.teach.rag runs/demo/demo.bundle --documents FOLDER --questions Q.jsonl --limit 200

Four ways to answer: the anchor alone, memory, RAG, and RAG with memory. Retrieval and routing see the question alone.
BoolQ's files bring their documents: the passages of all questions are what is searched.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_pretrain.teach.documents import read_folder
from edge_pretrain.teach.placement import Routing
from edge_runtime.cli.evaluate import is_right
from edge_runtime.errors import BadFormatError
from edge_runtime.lines import text_lines
from edge_runtime.runtime import Runtime

WAYS = {"anchor": (False, False), "memory": (False, True), "RAG": (True, False), "RAG + memory": (True, True)}


@dataclass(frozen=True)
class Row:
    """Means over the questions; `flops` of the prompt and the answer, `bytes_read` of bank and documents."""

    way: str
    right: float
    prompt_tokens: float
    flops: float
    milliseconds: float
    bytes_read: float


class Library:
    """Documents by leaf: the nearest within the question's leaf, or of all where the leaf has none."""

    def __init__(self, routing: Routing, texts: Sequence[str]) -> None:
        self._routing, self._texts = routing, list(texts)
        self._embeddings = routing.embed(self._texts)
        self._leaves: dict[int, list[int]] = defaultdict(list)
        for index, leaf in enumerate(routing.nodes(self._embeddings, routing.spec.depth)):
            self._leaves[leaf].append(index)

    def nearest(self, question: str) -> str:
        embedding: NDArray[np.float32] = self._routing.embed([question])
        (leaf,) = self._routing.nodes(embedding, self._routing.spec.depth)
        members = self._leaves.get(leaf) or list(range(len(self._texts)))
        return self._texts[members[int((self._embeddings[members] @ embedding[0]).argmax())]]


def read_records(path: Path, limit: int) -> list[dict[str, str]]:
    """prompt and answer of each line; of BoolQ's `query`, `choices` and `gold`, the passage as well."""
    found = []
    for number, line in text_lines(path, "questions, a JSON object a line")[:limit]:
        try:
            record = json.loads(line)
            if "query" in record:
                passage, question = record["query"].split("\nQuestion:", 1)
                answer = record["choices"][record["gold"]]
                prompt = f"Question:{question.rstrip()}\nAnswer:"
                found.append(
                    {"prompt": prompt, "answer": answer, "passage": passage.removeprefix("Passage: ")}
                )
            else:
                found.append({"prompt": str(record["prompt"]), "answer": str(record["answer"])})
        except (ValueError, KeyError, TypeError, IndexError):
            raise BadFormatError(f"{path}: line {number} is not a question") from None
    return found


def answer(runtime: Runtime, question: str, document: str, memory: bool) -> tuple[str, int, int, int]:
    """The greedy answer, the tokens of the prompt and of the answer, and the bytes read of the bank."""
    manifest, context = runtime.bundle.manifest, runtime.engine.new_context()
    tokens = runtime.tokenizer.encode(question)
    room = manifest.anchor.context_length - manifest.generation.max_tokens - len(tokens) - 1
    before = runtime.tokenizer.encode(document + " ")[: max(0, room)] if document else []
    first = [manifest.tokens.bos] if manifest.tokens.add_bos and manifest.tokens.bos is not None else []
    prompt = [*first, *before, *tokens]
    lease = None
    if memory and runtime.pager is not None and runtime.router is not None and manifest.memory is not None:
        nodes = [node for node in runtime.router.route(question).nodes if manifest.memory.level(node[0])]
        lease = runtime.pager.fetch([node for node in nodes if node not in runtime.bundle.state.removed])
    read, handle = (lease.bytes_read, lease.handle) if lease is not None else (0, 0)
    logits = context.forward(np.array(prompt, np.int64), handle)
    ids: list[int] = []
    text = ""
    while len(ids) < manifest.generation.max_tokens:
        token = int(logits.argmax())
        if token in manifest.tokens.eos:
            break
        ids.append(token)
        text = runtime.tokenizer.decode(ids)
        if any(stop in text for stop in manifest.generation.stop):
            break
        logits = context.forward(np.array([token], np.int64), handle)
    if lease is not None:
        lease.release()
    return text, len(prompt), len(ids), read


def measure(bundle: Path, records: Sequence[dict[str, str]], texts: Sequence[str], threads: int) -> list[Row]:
    """A row for each way of answering; with the blocks of one question leased at a time."""
    runtime = Runtime.open(bundle, threads=threads)
    library = Library(Routing(runtime.bundle, threads), texts)
    anchor, memory = runtime.bundle.manifest.anchor, runtime.bundle.manifest.memory
    fetched = 0
    if memory is not None:
        rows = sum(level.rows for level in memory.levels if level.level)
        fetched = 3 * rows * anchor.d_model * len(memory.layers)
    found = []
    for way, (retrieved, with_memory) in WAYS.items():
        rights, prompts, flops, times, reads = [], [], [], [], []
        for record in records:
            start = time.perf_counter()
            document = library.nearest(record["prompt"]) if retrieved else ""
            text, prompt, written, read = answer(runtime, record["prompt"], document, with_memory)
            times.append(1e3 * (time.perf_counter() - start))
            rights.append(is_right(text, record["answer"]))
            prompts.append(prompt)
            # Two a parameter and token, and the products of queries, keys and values.
            total = prompt + written
            attention = 2 * anchor.layers * anchor.heads * anchor.head_dim * total * total
            flops.append(2 * (anchor.parameters + fetched * with_memory) * total + attention)
            reads.append(read + len(document.encode()))
        mean = statistics.mean
        found.append(
            Row(way, 100 * mean(rights), mean(prompts), mean(flops), statistics.median(times), mean(reads))
        )
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown, FLOPs beside those of the anchor alone."""
    lines = ["| | right, % | prompt tokens | FLOPs | ms | bytes read |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row.way} | {row.right:.1f} | {row.prompt_tokens:.0f} | x{row.flops / rows[0].flops:.2f} | "
            f"{row.milliseconds:.1f} | {row.bytes_read:,.0f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m edge_pretrain.teach.rag")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--documents", type=Path, help="a folder (default: the questions' passages)")
    parser.add_argument("--limit", type=int, default=400, help="the first questions (default: 400)")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    records = read_records(given.questions, given.limit)
    if given.documents is not None:
        parts = [part for one in read_folder(given.documents) for part in one.text.split("\n\n")]
        texts = [" ".join(part.split()) for part in parts if part.strip()]
    else:
        texts = sorted({record["passage"] for record in records if "passage" in record})
    if not texts:
        parser.error("the questions bring no passages: give --documents")
    print(table(measure(given.bundle, records, texts, given.threads)))


if __name__ == "__main__":
    main()
