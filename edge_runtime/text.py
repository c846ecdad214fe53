"""Between text and tokens: the anchor's tokenizer, streamed decoding, stop texts and chat templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_runtime import _core
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadFormatError, InvalidArgumentError, TokenizerMismatchError, UnsupportedError

if TYPE_CHECKING:  # the package takes 15 MB, and most processes need none of it
    import tokenizers

# For anchors that were not trained on dialogue: turns follow one another as plain text.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{{ '\\n' if m.role == 'assistant' else '' }}{% endfor %}"
)
_INCOMPLETE = "\ufffd"  # what decoding makes of the first bytes of a character

Message = dict[str, str]
"""{"role": "user" | "assistant" | "system", "content": text}, the Hugging Face convention."""


class Tokenizer(Protocol):
    """Text to token ids and back; no special tokens are added."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        ...

    def token(self, id: int) -> str:
        """A token by itself, special ones too; empty beyond the vocabulary."""
        ...


class PackageTokenizer:
    """What the core does not read, through the package `tokenizers`: see `Tokenizer`."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def token(self, id: int) -> str:
        return self._tokenizer.id_to_token(id) or ""


def open_tokenizer(path: Path) -> Tokenizer:
    """A Hugging Face tokenizer.json. Raises BadFormatError, NotFoundError."""
    try:
        return _core.Tokenizer(str(path))
    except UnsupportedError:
        return PackageTokenizer(read_tokenizer(path))


def load_tokenizer(bundle: Bundle) -> Tokenizer:
    """The anchor's tokenizer.

    Raises:
        BadFormatError: not a tokenizer file.
        TokenizerMismatchError: its vocabulary is not the manifest's, or exceeds the anchor's.
    """
    manifest = bundle.manifest
    path = bundle.path_of(manifest.tokenizer_path)
    tokenizer = open_tokenizer(path)
    size, stated = tokenizer.vocab_size, manifest.tokenizer_vocab_size
    if size != stated or size > manifest.anchor.vocab_size:
        raise TokenizerMismatchError(
            f"{path}: it has {size} tokens, the manifest says {stated} and the anchor "
            f"{manifest.anchor.vocab_size}: take the tokenizer that the anchor was trained with"
        )
    return tokenizer


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """A Hugging Face tokenizer.json as the package `tokenizers` has it. Raises BadFormatError."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain Exception
        raise BadFormatError(f"{path}: not a tokenizer file ({error}): copy the bundle again") from None


def readable(text: str) -> str:
    """The text as UTF-8 can encode it: surrogates, which undecodable bytes become on the way in, are replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Detokenizer:
    """Decodes a stream of tokens: text comes out as soon as its characters are whole.

    Each step decodes only the tokens of the last piece and the new ones: enough context for decoders that treat
    the first token of a text apart, at a constant cost.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(context[-4:])
        self._shown = len(self._tokens)

    def push(self, token: int) -> str:
        """Text that the token completes, often all of its own."""
        self._tokens.append(token)
        text = self._pending()
        if text.endswith(_INCOMPLETE):
            return ""
        return self._advance(text)

    def flush(self) -> str:
        """What is left at the end, whole or not."""
        return self._advance(self._pending())

    def _pending(self) -> str:
        before = self._tokenizer.decode(self._tokens[: self._shown])
        return self._tokenizer.decode(self._tokens)[len(before) :]

    def _advance(self, text: str) -> str:
        if text:
            self._tokens = self._tokens[self._shown :]
            self._shown = len(self._tokens)
        return text


class StopTexts:
    """Ends a stream at the first of some texts, holding back what may become one."""

    def __init__(self, texts: Sequence[str]) -> None:
        if "" in texts:
            raise InvalidArgumentError("a stop text is empty")
        self._texts = list(texts)
        self._held = ""
        self.reached = False

    def push(self, text: str) -> str:
        """Text that may be shown. Once `reached`, the stop text and all behind it are dropped."""
        held = self._held + text
        found = [at for stop in self._texts if (at := held.find(stop)) >= 0]
        if found:
            self.reached, self._held = True, ""
            return held[: min(found)]
        longest = max((self._overlap(held, stop) for stop in self._texts), default=0)
        self._held = held[len(held) - longest :]
        return held[: len(held) - longest]

    def flush(self) -> str:
        """What was held back and became no stop text."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """How many of the text's last characters begin the stop text."""
        return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class ChatTemplate:
    """Renders messages; the template runs in a sandbox, since it comes with the bundle."""

    def __init__(self, source: str | None, bos: str = "", eos: str = "") -> None:
        # Here and not above: a process that renders none is 7 MB smaller.
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        self._tokens = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(PLAIN_TEMPLATE if source is None else source)
        except TemplateError as error:
            raise BadFormatError(f"the bundle's chat template: {error}") from None

    def render(self, messages: Sequence[Message]) -> str:
        """The messages as text, up to where the assistant goes on. BadFormatError where the template fails."""
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._tokens)
        except Exception as error:  # a template can raise anything
            raise BadFormatError(f"the bundle's chat template: {error}") from None


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
