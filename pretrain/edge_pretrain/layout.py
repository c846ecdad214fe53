"""The names in a checkpoint directory; a file of its own because looking for them needs no torch."""

FORMAT = "edge-runtime.checkpoint"
VERSION = 1
POSTHOC_FILES = ("config.json", "memories.safetensors", "tree.safetensors", "tokenizer.json")
FILES = ("config.json", "anchor.safetensors", "memories.safetensors", "tree.safetensors", "tokenizer.json")
