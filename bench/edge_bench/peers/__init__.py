"""The peers: other runtimes that run a language model on a phone's CPU, beside ours, on one machine in one run.

`python -m edge_bench.peers`; docs/benchmarks.md says how they are measured. One file a peer.
"""
