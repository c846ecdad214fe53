"""The console script `edge-runtime`: one verb a file."""
