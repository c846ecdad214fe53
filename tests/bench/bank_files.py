"""A bank of the shape that the benchmarks sample, small enough for a test."""

from pathlib import Path

from edge_bench.banks import Bank, BankConfig, make_bank, sample_nodes

TINY = BankConfig("tiny", 64, 2, (256, 128, 64))


def tiny_bank(directory: Path) -> Bank:
    nodes = sample_nodes(TINY)
    for _ in make_bank(TINY, directory, nodes):
        pass
    return Bank(TINY, directory, nodes)
