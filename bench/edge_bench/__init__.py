"""Benchmarks of edge_runtime, each with the command that makes its figures: docs/benchmarks.md."""
