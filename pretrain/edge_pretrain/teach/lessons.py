"""From placed documents to what the trainer takes: blocks, what is read beside them, and tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.teach.documents import Section
from edge_pretrain.teach.placement import Placement
from edge_pretrain.teach.training import Example, Lesson
from edge_runtime.administration.level_files import LevelFiles
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InvalidArgumentError
from edge_runtime.text import Tokenizer


class Bank:
    """The bundle's blocks as its engines read them, quantisation and all."""

    def __init__(self, bundle: Bundle) -> None:
        assert bundle.manifest.memory is not None
        self.memory = bundle.manifest.memory
        self._files = {
            level.level: LevelFiles([bundle.path_of(name) for name in level.files])
            for level in self.memory.levels
        }
        self._removed, self._directory = bundle.state.removed, bundle.directory

    def block(self, level: int, node: int) -> Tensor | None:
        """f32 [layers, 3, r, d], None where the node has none."""
        files = self._files.get(level)
        if files is None or (level, node) in self._removed or not files.has(node):
            return None
        return torch.from_numpy(files.reader_of(node).read(node))

    def own(self, level: int, node: int) -> Tensor:
        """A block that is to learn more. InvalidArgumentError where it was removed."""
        block = self.block(level, node)
        if block is None:
            raise InvalidArgumentError(f"{self._directory}: {level}:{node} is removed and cannot learn")
        return block

    def above(self, level: int, node: int) -> Tensor:
        """The blocks of the node's ancestors side by side, f32 [layers, 3, R, d]."""
        fanout = self.memory.fanout
        found = [self.block(at, node // fanout ** (level - at)) for at in range(1, level)]
        width = next(iter(self._files.values())).spec.d_model
        empty = torch.zeros(len(self.memory.layers), 3, 0, width)
        return torch.cat([empty, *(block for block in found if block is not None)], dim=2)


def fresh_block(bundle: Bundle, rows: int, seed: int, node: int) -> Tensor:
    """As memories start in pretraining: without effect."""
    memory = bundle.manifest.memory
    assert memory is not None
    config = MemoryConfig(1, (rows,), memory.layers)
    generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, node]).integers(2**62)))
    return MemoryBank.initialized(config, bundle.manifest.anchor, generator).levels[1][0]


class Tokens:
    """Texts as examples: with the BOS that prompts have, cut to the anchor's context, closed by its EOS."""

    def __init__(self, bundle: Bundle, tokenizer: Tokenizer) -> None:
        tokens, self._tokenizer = bundle.manifest.tokens, tokenizer
        self._first = [tokens.bos] if tokens.add_bos and tokens.bos is not None else []
        self._last = list(tokens.eos[:1])
        self._length = bundle.manifest.anchor.context_length

    def examples(self, section: Section) -> list[Example]:
        if not section.pieces:
            return self.whole(section.heading)
        found = []
        for piece in section.pieces:
            heading = self._ids(section.heading)
            ids = self._ids(f"{section.heading} {piece}")
            # A tokenizer may join the heading's end with what follows: learning starts where the two part.
            start = next(
                (i for i, (a, b) in enumerate(zip(heading, ids, strict=False)) if a != b), len(heading)
            )
            found += self._cut(ids, start)
        return found

    def whole(self, text: str) -> list[Example]:
        return self._cut(self._ids(text), 0)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def _cut(self, ids: list[int], start: int) -> list[Example]:
        ids = [*self._first, *ids, *self._last]
        start = max(1, start + len(self._first))
        whole = [Example(ids[: self._length], start)] if start < min(len(ids), self._length) else []
        rest = range(self._length, len(ids), self._length - 1)
        tails = [Example([*self._first, *ids[at : at + self._length - 1]], 1) for at in rest]
        return whole + [tail for tail in tails if len(tail.tokens) > 1]


def make_lessons(
    bundle: Bundle, tokens: Tokens, placement: Placement, rows: int, seed: int
) -> Sequence[Lesson]:
    """One for each block that is to learn, by node."""
    bank, level = Bank(bundle), placement.level
    lessons = []
    for node, sections in sorted(placement.taught.items()):
        block = bank.own(level, node) if placement.tree is None else fresh_block(bundle, rows, seed, node)
        examples = [example for section in sections for example in tokens.examples(section)]
        examples += [one for text in placement.replayed.get(node, []) for one in tokens.whole(text)]
        if examples:
            lessons.append(Lesson(node, block, bank.above(level, node), examples))
    return lessons
