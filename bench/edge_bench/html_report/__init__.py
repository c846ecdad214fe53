"""`edge-runtime report`: records of the benchmarks as one page."""
