"""A discrete-event simulator of storage tiers around the real pager: `edge-runtime simulate`, docs/simulate.md."""
