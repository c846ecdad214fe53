"""EleutherAI's lm-evaluation-harness: python -m edge_pretrain.harness CHECKPOINT TASK... [--mode fetched]

TASK is a task file (.yaml, with a data set of its own on disk) or a name of the harness, which then loads from the
network. Retrieval as in Pouransari et al. 2025, section 4: by the question of multiple choice, by the context of
language modelling, by the shared part of schema tasks, by the document itself for perplexity.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F

try:
    from lm_eval import simple_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"python -m edge_pretrain.harness: no module {error.name!r}: pip install 'lm-eval>=0.4.9'")

from edge_pretrain import checkpoint
from edge_pretrain.embed import MiniLM
from edge_pretrain.evaluate import Mode
from edge_pretrain.memory_types import TYPES
from edge_pretrain.model import MemoryRows
from edge_runtime._core import Tree

MODES = [mode for mode in get_args(Mode) if mode != "random"]


class MemoryLM(LM):  # type: ignore[misc]  # the harness has no types
    """A checkpoint of ours as a model of the harness; `mode` says how it reads its bank."""

    def __init__(self, directory: Path, mode: Mode = "fetched", embedder: str | None = None) -> None:
        super().__init__()
        self.checkpoint = checkpoint.load(directory, TYPES)
        self.mode = mode
        self._tree = Tree(str(self.checkpoint.tree_path))
        self._embedder = MiniLM(embedder) if mode in ("fetched", "blocked") else None
        tokens = self.checkpoint.config["tokens"]
        self._bos: list[int] = [] if tokens["bos"] is None else [tokens["bos"]]
        self._eos = set(tokens["eos"])

    def leaf(self, text: str) -> int:
        """The leaf that a text is routed to, in mode `blocked` around its level-1 node."""
        if self._embedder is None:
            return 0
        embedding = self._embedder.embed([text])[0]
        path = self._tree.descend(embedding)[0]
        if self.mode == "blocked":
            path = self._tree.descend(embedding, [(1, path[0])])[0]
        return int(path[-1])

    def _memory(self, routed: str) -> MemoryRows | None:
        if self.mode == "baseline":
            return None
        generic = torch.tensor([self.mode == "generic"])
        return self.checkpoint.memories.fetch(torch.tensor([self.leaf(routed)]), generic)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.checkpoint.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @torch.inference_mode()
    def _score(self, context: list[int], continuation: list[int], routed: str) -> tuple[float, bool]:
        """Log likelihood of the continuation, and whether it is what greedy decoding writes."""
        width = self.checkpoint.anchor.config.context_length
        ids = (context + continuation)[-width - 1 :]
        count = min(len(continuation), len(ids) - 1)
        logits = self.checkpoint.anchor(torch.tensor([ids[:-1]]), self._memory(routed))[
            0, len(ids) - 1 - count :
        ]
        targets = torch.tensor(ids[len(ids) - count :])
        chosen = F.log_softmax(logits, dim=-1).gather(1, targets[:, None])
        return float(chosen.sum()), bool((logits.argmax(-1) == targets).all())

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        shared: dict[tuple[Any, Any], str] = {}
        for request in requests:
            key = (request.task_name, request.doc_id)
            before = shared.get(key, request.args[0])
            # Character by character is what is meant.
            shared[key] = os.path.commonprefix([before, request.args[0]])  # noqa: RUF071
        found = []
        for request in requests:
            context, continuation = request.args
            whole, begun = self._encode(context + continuation), self._encode(context)
            routed = shared[request.task_name, request.doc_id].strip() or context
            found.append(self._score(self._bos + begun, whole[len(begun) :], routed))
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of whole documents, in windows of the context's length that do not overlap."""
        width, found = self.checkpoint.anchor.config.context_length, []
        for request in requests:
            ids = self._encode(request.args[0])
            parts = [ids[start : start + width] for start in range(0, len(ids), width)]
            found.append(sum(self._score(self._bos, part, request.args[0])[0] for part in parts))
        return found

    @torch.inference_mode()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        width, found = self.checkpoint.anchor.config.context_length, []
        for request in requests:
            context, options = request.args
            until = options.get("until") or []
            stops = [until] if isinstance(until, str) else until
            ids, memory = self._bos + self._encode(context), self._memory(context)
            text, begun = "", len(ids)
            while len(ids) - begun < options.get("max_gen_toks", 64):
                chosen = int(self.checkpoint.anchor(torch.tensor([ids[-width:]]), memory)[0, -1].argmax())
                if chosen in self._eos:
                    break
                ids.append(chosen)
                text = self.checkpoint.tokenizer.decode(ids[begun:])
                if any(stop in text for stop in stops):
                    break
            ends = [text.index(stop) for stop in stops if stop in text]
            found.append(text[: min(ends, default=len(text))])
        return found


def evaluate(model: MemoryLM, tasks: Sequence[str], limit: int | None = None) -> dict[str, Any]:
    """The harness's `results` by task; tasks: files or names."""
    folders = sorted({str(Path(task).resolve().parent) for task in tasks if task.endswith((".yaml", ".yml"))})
    names = [task_name(Path(task)) if task.endswith((".yaml", ".yml")) else task for task in tasks]
    manager = TaskManager(include_path=folders or None)
    found = simple_evaluate(model=model, tasks=names, task_manager=manager, limit=limit, bootstrap_iters=1000)
    return dict(found["results"])


def task_name(path: Path) -> str:
    """The name that a task file gives its task. Raises ValueError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable: {error}") from error
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("task:")]
    if not names:
        raise ValueError(f"{path}: has no line `task: NAME`")
    return names[0]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_pretrain.harness", description=__doc__.splitlines()[0]
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tasks", nargs="+", metavar="TASK")
    parser.add_argument("--mode", choices=MODES, default="fetched")
    parser.add_argument("--limit", type=int, help="documents of each task (default: all)")
    parser.add_argument("--embedder", help="all-MiniLM-L6-v2, a directory or Hugging Face id")
    options = parser.parse_args(arguments)
    try:
        model = MemoryLM(options.checkpoint, options.mode, options.embedder)
        print(json.dumps(evaluate(model, options.tasks, options.limit), indent=2, default=str))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
