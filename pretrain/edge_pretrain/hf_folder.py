"""Hugging Face folders, as far as their JSON says what they are: family, tokens, files. No torch in here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_pretrain.tokenizer import Markers
from edge_runtime.errors import BadFormatError, NotFoundError, UnsupportedError

HF_FILES = ("config.json", "tokenizer.json")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin", "consolidated.00.pth")
# Hugging Face's `model_type`s, and who they are. SmolLM2 is a llama.
HF_FAMILIES = {
    "llama": "Llama 3, SmolLM2",
    "qwen2": "Qwen 2.5",
    "qwen3": "Qwen 3",
    "gemma3_text": "Gemma 3 (text)",
    "smollm3": "SmolLM3",
    "olmo2": "OLMo 2",
}


def hf_config(folder: Path) -> dict[str, Any]:
    """A Hugging Face folder's config.json.

    Raises:
        BadFormatError: not a JSON object with a model_type.
        UnsupportedError: a family that is not in HF_FAMILIES.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFormatError(f"{path}: not readable as JSON ({error}): copy the checkpoint again") from None
    family = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(family, str):
        raise BadFormatError(f"{path}: it has no model_type: name the folder of a Hugging Face model")
    if family not in HF_FAMILIES:
        known = ", ".join(f"{name} ({who})" for name, who in HF_FAMILIES.items())
        raise UnsupportedError(f"{path}: architecture {family!r} is not supported; there are {known}")
    assert isinstance(config, dict)
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights.

    Raises:
        NotFoundError: none, or a shard is missing.
        UnsupportedError: there are only pickles.
        BadFormatError: the index is damaged.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = folder / INDEX
    if not index.is_file():
        if pickles := [name for name in PICKLES if (folder / name).is_file()]:
            raise UnsupportedError(
                f"{folder / pickles[0]}: a pickle can run any code, so it is not opened: "
                f"save the checkpoint as safetensors (save_pretrained does)"
            )
        raise NotFoundError(f"{folder}: neither {SINGLE} nor {INDEX}: name a folder with a model's weights")
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        safe = all(isinstance(name, str) and Path(name).name == name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFormatError(f"{index}: not an index of shards ({error!r}): copy it again") from None
    if not safe or not names:
        raise BadFormatError(f"{index}: its shards are not files of the same folder: copy it again")
    for name in sorted(names):
        if not (folder / name).is_file():
            raise NotFoundError(f"{folder / name}: a shard that {INDEX} names is missing: copy it again")
    return [folder / name for name in sorted(names)]


def settings(folder: Path) -> dict[str, Any]:
    """The manifest's `tokens`, `chat_template` and `generation`, out of the folder's JSON files."""
    config, generation = hf_config(folder), _json(folder / "generation_config.json")
    tokenizer = _json(folder / "tokenizer_config.json")

    def first(key: str) -> Any:
        value = generation.get(key)
        return config.get(key) if value is None else value

    bos, eos = first("bos_token_id"), first("eos_token_id")
    template_file = folder / "chat_template.jinja"
    template = tokenizer.get("chat_template")
    if template_file.is_file():
        template = template_file.read_text(encoding="utf-8")
    elif isinstance(template, list):  # several, by name
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    # Tokenizers whose own processor puts BOS first say so here, or are of these families.
    add_bos = tokenizer.get("add_bos_token", config["model_type"] in ("llama", "gemma3_text"))
    return {
        "tokens": {
            "bos": bos,
            "eos": eos if isinstance(eos, list) else [] if eos is None else [eos],
            "add_bos": bool(add_bos and bos is not None),
        },
        "chat_template": template,
        "generation": {"max_tokens": 64, "temperature": 0.0, "stop": []},
    }


def _json(path: Path) -> dict[str, Any]:
    """The file's object; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadFormatError(f"{path}: not JSON ({error}): copy the checkpoint again") from None
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class AnchorFolder:
    """A Hugging Face folder whose files are there and of a family that is known; weights are not read yet."""

    path: Path
    family: str

    @classmethod
    def open(cls, path: Path) -> AnchorFolder:
        """
        Raises:
            NotFoundError: a file is missing, a shard of the weights among them.
            UnsupportedError: another family, or weights in a pickle.
            BadFormatError: config.json or the index is damaged.
        """
        for name in HF_FILES:
            if not (path / name).is_file():
                raise NotFoundError(f"{path / name}: no such file: name the folder of a Hugging Face model")
        family: str = hf_config(path)["model_type"]
        weight_files(path)
        return cls(path, family)

    @property
    def settings(self) -> dict[str, Any]:
        """`tokens`, `chat_template` and `generation` of its bundles."""
        return settings(self.path)

    @property
    def markers(self) -> Markers:
        """What opens and closes a document: BOS where prompts get one, the first EOS."""
        tokens = self.settings["tokens"]
        return Markers(tokens["bos"] if tokens["add_bos"] else None, next(iter(tokens["eos"]), None))

    def sha256(self) -> dict[str, str]:
        """Of what its logits depend on, by file name."""
        found = {}
        for path in (*(self.path / name for name in HF_FILES), *weight_files(self.path)):
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def to_checkpoint(self) -> dict[str, Any]:
        """The checkpoint's `anchor` object."""
        return {
            "architecture": "huggingface",
            "model_type": self.family,
            "path": str(self.path.resolve()),
            "sha256": self.sha256(),
        }
