"""Anchors of every family against transformers' own forward, and folders that are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from families import CASES, LLAMA3, save

from edge_export.decoder import PagedDecoder
from edge_export.huggingface import decoder_config, load_decoder
from edge_runtime.errors import BadFormatError, EdgeRuntimeError, NotFoundError, UnsupportedError

TOLERANCE = 1e-4
# Longer than the sliding window (8) and than the length that RoPE scaling starts from (16).
TOKENS = torch.randint(0, 320, (1, 48), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("case", CASES)
def test_parity_with_transformers(case: str, tmp_path: Path) -> None:
    model = save(case, tmp_path)
    with torch.no_grad():
        wanted = model(TOKENS).logits
        decoder = load_decoder(tmp_path, 4096)
        assert (decoder(TOKENS) - wanted).abs().max() < TOLERANCE
        assert decoder.config.context_length == 64
        assert decoder.config.parameters == sum(p.numel() for p in model.parameters())
        paged, none = PagedDecoder(decoder, ()), torch.zeros(1, dtype=torch.long)
        assert (paged(TOKENS, torch.tensor([0]), none) - wanted[:, -1]).abs().max() < TOLERANCE
        at = 0
        for count in [20, *[1] * 15, 7, *[1] * 6]:
            logits = paged(TOKENS[:, at : at + count], torch.tensor([at]), none)
            at += count
            assert (logits - wanted[:, at - 1]).abs().max() < TOLERANCE


def test_older_config_files_say_the_same(tmp_path: Path) -> None:
    save("llama3", tmp_path)
    wanted, path = decoder_config(tmp_path, 4096), tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    config["rope_theta"] = LLAMA3["rope_theta"]
    config["rope_scaling"] = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    path.write_text(json.dumps(config))
    assert decoder_config(tmp_path, 4096) == wanted


def refused(folder: Path, error: type[EdgeRuntimeError], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        load_decoder(folder, 4096)
    assert "\n" not in str(caught.value)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_other_architectures_are_refused_by_name(tmp_path: Path) -> None:
    save("llama3", tmp_path)
    change(tmp_path / "config.json", model_type="mamba2")
    refused(tmp_path, UnsupportedError, r"'mamba2'.*Llama 3.*Qwen 2\.5.*Qwen 3.*Gemma 3.*SmolLM3.*OLMo 2")


def test_an_attention_softcap_is_refused(tmp_path: Path) -> None:
    save("gemma3-capped", tmp_path)
    change(tmp_path / "config.json", attn_logit_softcapping=5.0)
    refused(tmp_path, UnsupportedError, "attn_logit_softcapping")


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"hidden_act": "relu"}, UnsupportedError, "relu"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
            UnsupportedError,
            "yarn",
        ),
        ({"intermediate_size": 96}, BadFormatError, r"gate_proj.weight is float32 \[64, 32\].*\[96, 32\]"),
        ({"num_hidden_layers": 3}, BadFormatError, r"model\.layers\.2\.\S+ is missing"),
        ({"num_hidden_layers": 1}, UnsupportedError, r"model\.layers\.1\.\S+ has no place"),
        ({"num_hidden_layers": "two"}, BadFormatError, "config.json: not a config of llama"),
    ],
)
def test_configs_that_do_not_fit(
    tmp_path: Path, changes: dict[str, object], error: type[EdgeRuntimeError], match: str
) -> None:
    save("llama3", tmp_path)
    change(tmp_path / "config.json", **changes)
    refused(tmp_path, error, match)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    model = save("llama3", tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, BadFormatError, r"model\.safetensors: damaged")
    weights.unlink()
    refused(tmp_path, NotFoundError, r"neither model\.safetensors nor")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    refused(tmp_path, UnsupportedError, r"pytorch_model\.bin: a pickle")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    load_decoder(tmp_path, 4096)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    refused(tmp_path, NotFoundError, re.escape(shard.name))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../a.safetensors"}}')
    refused(tmp_path, BadFormatError, "same folder")
