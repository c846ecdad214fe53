"""`edge-runtime footprint`: the least memory that a bundle answers in, and how fast."""
