"""Streaming text out of tokens, stop texts and chat templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edge_runtime import _core
from edge_runtime.errors import BadFormatError, InvalidArgumentError
from edge_runtime.text import ChatTemplate, Detokenizer, PackageTokenizer, StopTexts, open_tokenizer


@pytest.fixture(scope="module")
def bytes_tokenizer() -> PackageTokenizer:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PackageTokenizer(tokenizer)


@given(st.text(max_size=40))
def test_streamed_text_is_the_whole_text(bytes_tokenizer: PackageTokenizer, text: str) -> None:
    stream = Detokenizer(bytes_tokenizer)
    pieces = [stream.push(token) for token in bytes_tokenizer.encode(text)]
    assert "".join(pieces) + stream.flush() == text


def test_a_character_comes_out_once_it_is_whole(bytes_tokenizer: PackageTokenizer) -> None:
    stream = Detokenizer(bytes_tokenizer)
    pieces = [stream.push(token) for token in bytes_tokenizer.encode("a€b")]
    assert pieces == ["a", "", "", "€", "b"]


def test_what_is_cut_off_comes_out_at_the_end(bytes_tokenizer: PackageTokenizer) -> None:
    stream = Detokenizer(bytes_tokenizer)
    assert [stream.push(token) for token in bytes_tokenizer.encode("€")[:2]] == ["", ""]
    assert stream.flush() == "\ufffd"


@given(st.text("ab.", max_size=12), st.lists(st.text("ab.", min_size=1, max_size=3), max_size=3))
def test_a_stream_stops_at_the_first_stop_text(text: str, stops: list[str]) -> None:
    stream = StopTexts(stops)
    shown = ""
    for character in text:
        shown += stream.push(character)
        if stream.reached:
            break
    shown += stream.flush()
    # The stop text that is complete first ends the stream; of those, the one that begins first cuts it.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert shown == text
        assert not stream.reached
    else:
        read = text[: min(ends)]
        assert shown == read[: min(read.find(stop) for stop in stops if stop in read)]
        assert stream.reached


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        StopTexts([""])


def test_a_template_renders_the_hugging_face_way() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}",
        "[B]",
        "[E]",
    )
    assert template.render([{"role": "user", "content": "hi"}]) == "[B]<user>hi[E]<assistant>"


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ messages.nothing.there }}", "{{ raise_exception('no') }}"]
)
def test_a_bad_template_is_one_error(source: str) -> None:
    with pytest.raises(BadFormatError, match="chat template"):
        ChatTemplate(source).render([])


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    source = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(BadFormatError, match="chat template"):
        ChatTemplate(source).render([])


def test_a_tokenizer_that_the_core_does_not_read_is_the_package_s(tmp_path: Path) -> None:
    whole, pieces = tmp_path / "bpe.json", tmp_path / "wordpiece.json"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.save(str(whole))
    wordpiece = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    wordpiece.pre_tokenizer = pre_tokenizers.Whitespace()
    wordpiece.save(str(pieces))
    for path, kind in ((whole, _core.Tokenizer), (pieces, PackageTokenizer)):
        tokenizer = open_tokenizer(path)
        assert isinstance(tokenizer, kind)
        assert tokenizer.decode(tokenizer.encode("a b")) == "a b"
        assert tokenizer.token(tokenizer.encode("b")[0]) == "b"
        assert tokenizer.token(10**6) == ""
