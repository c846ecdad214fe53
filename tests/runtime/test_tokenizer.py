"""The core's tokenizer against the package `tokenizers`: the same ids and the same text, for every kind it reads."""

# ruff: noqa: RUF001  texts of all scripts are what this is about
from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from pydoc_data import topics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from edge_runtime import _core
from edge_runtime.errors import BadFormatError, NotFoundError, UnsupportedError

LINES = [
    "The quick brown fox jumps over the lazy dog; it's 12,345.67 times they've done so.",
    "Größe, naïve café, Ελληνικά, Русский язык, עברית, العربية ١٢٣, हिन्दी, ไทย, 한국어 텍스트, 日本語の文章、中文。",
    "e\u0301 cafe\u0301 \u1100\u1161\u11a8 ﬁ ½ ² Ⅷ \u00a0\u2003\u3000\u200b\ufeff 👩‍👩‍👧‍👦 🇵🇹 𝔘𝔫𝔦 \U0001f600",
    "def f(x):\n\treturn {'a': x ** 2}  # code\r\n\r\n    if x != None:\n        pass\n\n\n",
    "    many      spaces   \t\t and trailing   ",
    "I'LL SHE'D don't 'tis 's ſ K ’s 1234567890 3.14 v2.0.1 foo_bar CamelCase <|end|> <|pad|>x<unk>",
    "\0\x01\x7f\x85\u2028 control \ufffd",
]
# Characters that Unicode knew when the oldest of the libraries concerned was made.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn", "Co"]).filter(
    lambda c: unicodedata.ucd_3_2_0.category(c) != "Cn"
)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def large_text() -> str:
    """About 400 KB: English prose, and lines and characters of all scripts in a random order."""
    order = random.Random(1)
    parts = []
    for topic in topics.topics.values():
        parts.append(topic)
        parts.extend(order.sample(LINES, 2))
    known = [
        chr(c)
        for c in range(0x20, 0x2FFFF)
        if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs", "Co")
    ]
    parts.extend("".join(order.choices(known, k=40)) for _ in range(500))
    return "\n".join(parts)[:400_000]


TEXT = large_text()


def trained(tokenizer: Tokenizer, special: list[str], **options: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, show_progress=False, **options)
    tokenizer.train_from_iterator(TEXT.splitlines(keepends=True)[:3000], trainer)
    return tokenizer


def byte_level(pre_tokenizer: Any, normalizer: Any = None, **model: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(tokenizer, ["<|end|>"], initial_alphabet=alphabet)


def gpt2() -> Tokenizer:
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


def neox() -> Tokenizer:
    """NFC, and added tokens that are no special ones: runs of spaces."""
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), normalizers.NFC())
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (2, 4, 8)])
    tokenizer.add_special_tokens(["<|pad|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def llama3() -> Tokenizer:
    steps = [
        pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return byte_level(pre_tokenizers.Sequence(steps), ignore_merges=True)


def digits() -> Tokenizer:
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return byte_level(pre_tokenizers.Sequence(steps))


def sentencepiece(pre_tokenizer: Any, normalizer: Any, steps: list[Any]) -> Tokenizer:
    """Few characters in the alphabet, so that the others fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Sequence(steps)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = trained(tokenizer, special, limit_alphabet=60, max_token_length=12)
    data = json.loads(tokenizer.to_str())
    # The bytes are tokens of the model, as in the files of such models: not added ones, which the text may name.
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(data))


def llama2() -> Tokenizer:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    prepended = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return sentencepiece(pre_tokenizers.Split("▁", "merged_with_next"), prepended, steps)


def gemma() -> Tokenizer:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return sentencepiece(
        pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁"), steps
    )


def metaspace() -> Tokenizer:
    steps = [decoders.ByteFallback(), decoders.Metaspace("▁", "first")]
    return sentencepiece(pre_tokenizers.Metaspace("▁", "first"), None, steps)


KINDS: list[Callable[[], Tokenizer]] = [gpt2, neox, llama3, digits, llama2, gemma, metaspace]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, _core.Tokenizer]:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    reference: Tokenizer = request.param()
    reference.save(str(path))
    return Tokenizer.from_file(str(path)), _core.Tokenizer(str(path))


def agree(pair: tuple[Tokenizer, _core.Tokenizer], text: str) -> list[int]:
    reference, ours = pair
    ids: list[int] = reference.encode(text, add_special_tokens=False).ids
    assert ours.encode(text) == ids, text[:200]
    return ids


def test_a_large_text_of_all_scripts_gives_the_same_ids_and_text(
    pair: tuple[Tokenizer, _core.Tokenizer],
) -> None:
    reference, ours = pair
    assert ours.vocab_size == reference.get_vocab_size()
    ids = agree(pair, TEXT)
    assert ours.decode(ids) == reference.decode(ids)


def test_added_tokens_by_themselves_are_their_text(pair: tuple[Tokenizer, _core.Tokenizer]) -> None:
    reference, ours = pair
    added = json.loads(reference.to_str())["added_tokens"]
    assert [ours.token(token["id"]) for token in added] == [token["content"] for token in added] != []
    assert ours.token(ours.encode("a")[-1]).endswith("a")
    assert ours.token(10**6) == ""


@pytest.mark.parametrize("line", LINES)
def test_lines_give_the_same_ids(pair: tuple[Tokenizer, _core.Tokenizer], line: str) -> None:
    for text in (line, line.strip(), " " + line, line + line):
        agree(pair, text)


@given(text=st.text(CHARACTERS, max_size=60))
def test_any_text_gives_the_same_ids_and_text(pair: tuple[Tokenizer, _core.Tokenizer], text: str) -> None:
    reference, ours = pair
    ids = agree(pair, text)
    assert ours.decode(ids) == reference.decode(ids)


@given(data=st.data())
def test_any_ids_give_the_same_text_whole_and_in_pieces(
    pair: tuple[Tokenizer, _core.Tokenizer], data: st.DataObject
) -> None:
    reference, ours = pair
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=30))
    text = reference.decode(ids)
    assert ours.decode(ids) == text
    # A stream cannot take back what it has shown when a run of fallback bytes turns out to be no text.
    if "\ufffd" not in text or reference.to_str().find("ByteFallback") < 0:
        assert "".join(ours.decode_pieces(ids)) == text


def test_a_character_comes_out_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    gpt2().save(str(path))
    ours = _core.Tokenizer(str(path))
    ids = [ours.encode(chr(byte))[0] if byte < 0x80 else None for byte in b"a"] + ours.encode("\U000e0001")
    pieces = ours.decode_pieces([i for i in ids if i is not None])
    assert pieces == ["a", "", "", "", "\U000e0001", ""]


# ---- files that are refused ----


def valid() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(gpt2().to_str())
    return data


BASE = valid()


def changed(*path: str, to: Any) -> str:
    data = json.loads(json.dumps(BASE))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return json.dumps(data)


SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
BAD: dict[str, tuple[str, type[Exception]]] = {
    "empty": ("", BadFormatError),
    "no JSON": ("{", BadFormatError),
    "a list": ("[]", BadFormatError),
    "nested": ("[" * 100_000, BadFormatError),
    "a key twice": ('{"model": 1, "model": 2}', BadFormatError),
    "no model": (changed("model", to=None), BadFormatError),
    "another model": (changed("model", "type", to="WordPiece"), UnsupportedError),
    "no vocabulary": (changed("model", "vocab", to={}), BadFormatError),
    "an id twice": (changed("model", "vocab", to={"a": 0, "b": 0}), BadFormatError),
    "an id that is text": (changed("model", "vocab", to={"a": "0"}), BadFormatError),
    "a negative id": (changed("model", "vocab", to={"a": -1}), BadFormatError),
    "a huge id": (changed("model", "vocab", to={"a": 2**24 - 1}), BadFormatError),
    "a merge of nothing": (changed("model", "merges", to=[["zzzz", "q"]]), BadFormatError),
    "a merge that is a number": (changed("model", "merges", to=[7]), BadFormatError),
    "dropout": (changed("model", "dropout", to=0.5), UnsupportedError),
    "a suffix": (changed("model", "end_of_word_suffix", to="</w>"), UnsupportedError),
    "a normalizer": (changed("normalizer", to={"type": "BertNormalizer"}), UnsupportedError),
    "a pre-tokenizer": (changed("pre_tokenizer", to={"type": "Whitespace"}), UnsupportedError),
    "no pre-tokenizer": (changed("pre_tokenizer", to=None), UnsupportedError),
    "no pattern": (changed("pre_tokenizer", to=SPLIT), BadFormatError),
    "a broken pattern": (changed("pre_tokenizer", to=SPLIT | {"pattern": {"Regex": "(("}}), BadFormatError),
    "a decoder": (changed("decoder", to={"type": "WordPiece"}), UnsupportedError),
    "truncation": (changed("truncation", to={"max_length": 3}), UnsupportedError),
    "added tokens of one id": (
        changed("added_tokens", to=[{"id": 9_999, "content": "x"}, {"id": 9_999, "content": "y"}]),
        BadFormatError,
    ),
    "an added token that takes spaces": (
        changed("added_tokens", to=[{"id": 9_999, "content": "x", "lstrip": True}]),
        UnsupportedError,
    ),
    "an added token that is another": (
        changed("added_tokens", to=[{"id": 5, "content": "no"}]),
        BadFormatError,
    ),
}


@pytest.mark.parametrize(("text", "error"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, error: type[Exception]) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(error) as raised:
        _core.Tokenizer(str(path))
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.json"):
        _core.Tokenizer(str(tmp_path / "none.json"))


def test_a_pattern_that_never_ends_gives_up(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    byte_step = BASE["pre_tokenizer"]
    hostile = {"type": "Sequence", "pretokenizers": [SPLIT | {"pattern": {"Regex": "(a+)+$"}}, byte_step]}
    path.write_text(changed("pre_tokenizer", to=hostile))
    with pytest.raises(UnsupportedError, match="gives up"):
        _core.Tokenizer(str(path)).encode("a" * 60 + "b")
