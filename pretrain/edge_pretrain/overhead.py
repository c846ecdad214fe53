"""What memories cost in training: python -m edge_pretrain.overhead [--dimensions demo|160M] prints one JSON object.

A step of the anchor alone against one of co-training, on random tokens. `ratio` is the median over pairs of steps
done in turn, so that a noisy machine slows both. The bank is small (fanout 2): a step's cost does not depend on it.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.model import PAPER_ANCHORS, Anchor, AnchorConfig
from edge_pretrain.sequences import ArraySequences
from edge_pretrain.train import PhaseConfig, Schedule, Trainer


@dataclass(frozen=True)
class Dimensions:
    """rows: r of each level. batch: sequences of `length` tokens a step."""

    anchor: AnchorConfig
    rows: tuple[int, ...]
    batch: int
    length: int


DIMENSIONS = {
    "demo": Dimensions(AnchorConfig(4, 64, 4, 16, 128, 1024, 256), (8, 32), 16, 128),
    "160M": Dimensions(PAPER_ANCHORS["160M"], (256, 64, 16), 1, 2048),
}


def trainer(dimensions: Dimensions, memory: bool, steps: int) -> Trainer:
    random, shape = np.random.default_rng(0), (8 * dimensions.batch, dimensions.length)
    config = MemoryConfig(2, dimensions.rows, tuple(range(dimensions.anchor.layers)))
    tokens = random.integers(0, dimensions.anchor.vocab_size, shape).astype(np.int32)
    leaves = random.integers(0, 2 ** len(dimensions.rows), len(tokens))
    generator = torch.Generator().manual_seed(0)
    anchor = Anchor(dimensions.anchor)
    anchor.initialize(generator)
    bank = MemoryBank.initialized(config, dimensions.anchor, generator) if memory else None
    rate = Schedule(1e-3, 1e-4)
    phase = PhaseConfig(steps, dimensions.batch, 1, rate, 0.05, rate if memory else None)
    return Trainer(anchor, phase, ArraySequences(tokens, np.zeros(shape, np.int32), leaves), 0, bank)


def measure(dimensions: Dimensions, steps: int) -> dict[str, float]:
    """Median seconds a step, and the ratio; the first step of each is not counted."""
    pair = [trainer(dimensions, memory, steps + 1) for memory in (False, True)]
    times: list[list[float]] = [[], []]
    for _ in range(steps + 1):
        for one, taken in zip(pair, times, strict=True):
            start = time.perf_counter()
            one.train_step()
            taken.append(time.perf_counter() - start)
    ratios = [memory / alone for alone, memory in zip(times[0][1:], times[1][1:], strict=True)]
    return {
        "anchor_s": statistics.median(times[0][1:]),
        "cotrain_s": statistics.median(times[1][1:]),
        "ratio": statistics.median(ratios),
        "steps": steps,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_pretrain.overhead", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--dimensions", choices=DIMENSIONS, default="demo")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found = measure(DIMENSIONS[options.dimensions], options.steps)
    print(json.dumps({"dimensions": options.dimensions, "threads": options.threads} | found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
