"""A tree and a static router over any documents, judged on any prompts: agreement level by level.

For corpora that no anchor was trained on: the tokenizer is trained on the documents, as pretraining does.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from edge_pretrain.cache import cached, digest
from edge_pretrain.cluster import ClusterTree, build_tree
from edge_pretrain.pipeline import embedded
from edge_pretrain.provenance import provenance
from edge_pretrain.router.config import DistillConfig
from edge_pretrain.router.cuts import cuts
from edge_pretrain.router.judge import StaticFile, agreement, agreement_by_margin
from edge_pretrain.router.training import embedded_in_shards, train_student
from edge_pretrain.tokenizer import train_tokenizer
from edge_runtime import _core
from edge_runtime.errors import BadFormatError, NotFoundError

SHARES = (0.25, 0.5, 0.75)  # of the prompts, by margin


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank. NotFoundError; BadFormatError where there are none."""
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file: name a text file with one text a line")
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    if not lines:
        raise BadFormatError(f"{path}: it has no texts")
    return lines


@dataclass(frozen=True)
class CorpusConfig:
    """What is built over the documents. cuts: prompt-like cuts to train on, beside the documents.

    tokenizer: a tokenizer.json to use instead of one of vocab_size tokens that is trained on the documents.
    """

    fanout: int
    depth: int
    vocab_size: int
    tokenizer: Path | None
    cuts: int
    seed: int


def tokenizer_of(texts: Sequence[str], corpus: CorpusConfig, out: Path) -> Tokenizer:
    """The anchor's tokenizer, or one trained on the texts. NotFoundError, BadFormatError."""
    path = corpus.tokenizer
    if path is None:
        key = [digest(texts), corpus.vocab_size]
        folder = cached(
            out,
            "tokenizer",
            key,
            lambda folder: train_tokenizer(texts, corpus.vocab_size, folder / "tokenizer.json"),
        )
        path = folder / "tokenizer.json"
    elif not path.is_file():
        raise NotFoundError(f"{path}: no such file: name a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise BadFormatError(f"{path}: not a tokenizer.json ({error})") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def judge_corpus(
    documents: Path,
    prompts: Sequence[Path],
    further: Sequence[Path],
    corpus: CorpusConfig,
    config: DistillConfig,
    out: Path,
    embedder: str | None,
    console: Console,
) -> dict[str, Any]:
    """Does what is not done yet under `out`; returns and writes out/results.json.

    further: files of texts that are trained on too, and are not in the tree.
    """
    texts = read_lines(documents)
    different = list(dict.fromkeys(texts))
    held_out = {path.name: read_lines(path) for path in prompts}
    teacher = embedded(out, embedder, console)
    others = [cuts(different, corpus.cuts, corpus.seed), *(read_lines(path) for path in further)]
    points = embedded_in_shards(teacher, texts)
    targets = np.concatenate([points, *(embedded_in_shards(teacher, each) for each in others if each)])
    trained_on = [*texts, *(text for each in others for text in each)]

    def write_tree(folder: Path) -> None:
        tree = build_tree(points, corpus.fanout, corpus.depth, corpus.seed)
        tree.write(folder / "tree.safetensors")
        arrays: dict[str, Any] = {f"centroids{i}": level for i, level in enumerate(tree.centroids)}
        arrays |= {f"documents{i}": level for i, level in enumerate(tree.documents)}
        np.savez(folder / "tree.npz", **arrays)

    key = [digest(texts), corpus.fanout, corpus.depth, corpus.seed]
    arrays = np.load(cached(out, "tree", key, write_tree) / "tree.npz")
    levels = range(corpus.depth)
    tree = ClusterTree(
        corpus.fanout,
        [arrays[f"centroids{i}"] for i in levels],
        [arrays[f"documents{i}"] for i in levels],
    )
    tokenizer = tokenizer_of(texts, corpus, out)
    student = train_student(trained_on, targets, tree, tokenizer, config, corpus.seed, console)
    path = out / "static.safetensors"
    student.write(path)
    static = StaticFile(path, tokenizer)

    results: dict[str, Any] = {
        "documents": len(texts),
        "training_texts": len(trained_on),
        "bytes": path.stat().st_size,
        "vocab_size": tokenizer.get_vocab_size(),
        "prompts": {},
    }
    for name, lines in {documents.name: texts, **held_out}.items():
        wanted, found = embedded_in_shards(teacher, lines), static(lines)
        results["prompts"][name] = {
            "count": len(lines),
            "agreement": agreement(tree, found, wanted),
            "leaf_agreement_of_the_surest": agreement_by_margin(tree, found, wanted, SHARES),
            "cosine": float((found * wanted).sum(1).mean()),
            "us_a_prompt": microseconds(path, cached(out, "tree", key, write_tree), tokenizer, lines),
        }
    configuration = asdict(corpus) | {
        "tokenizer": corpus.tokenizer and corpus.tokenizer.name,
        "distill": asdict(config),
    }
    results["provenance"] = provenance(corpus.seed, configuration)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def microseconds(static: Path, tree: Path, tokenizer: Tokenizer, lines: Sequence[str]) -> float:
    """The median time from text to path."""
    embedder, nodes = _core.StaticEmbedder(str(static)), _core.Tree(str(tree / "tree.safetensors"))
    times = []
    for line in lines:
        start = time.perf_counter()
        ids = np.array(tokenizer.encode(line, add_special_tokens=False).ids, np.uint32)
        nodes.descend(embedder.embed(ids))
        times.append(1e6 * (time.perf_counter() - start))
    return round(float(np.median(times)), 1)


def show(results: dict[str, Any], console: Console) -> None:
    """The same as a table."""
    size = f"{results['bytes'] / 1e6:.2f} MB"
    depth = len(next(iter(results["prompts"].values()))["agreement"])
    levels = [f"level {level}" for level in range(1, depth + 1)]
    table = Table("prompts", "count", *levels, "surest half, leaf", "cosine", "µs", title=f"static, {size}")
    for name, found in results["prompts"].items():
        shares = [f"{share:.1%}" for share in found["agreement"]]
        surest = f"{found['leaf_agreement_of_the_surest'][0.5]:.1%}"
        cosine, time_a_prompt = f"{found['cosine']:.3f}", f"{found['us_a_prompt']:.0f}"
        table.add_row(name, str(found["count"]), *shares, surest, cosine, time_a_prompt)
    console.print(table)
