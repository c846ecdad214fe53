"""Texts to train on: JSONL, Parquet, folders of text files, Hugging Face datasets (streamed).

Documents are tokenized shard by shard and kept as windows in RaggedMmaps; a shard has its name once it is
complete, so a run that was stopped goes on at the first shard that is missing.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from mmap_ninja import RaggedMmap
from tokenizers import Tokenizer

from edge_pretrain.cache import cached
from edge_runtime.text import readable

SHARD = 10_000  # documents
ENCODED = 256  # documents at once: what a tokenizer returns is many times their tokens
FORMS = "a .jsonl or .parquet file, a folder of those or of .txt files, or hf:DATASET[:SPLIT]"


class SourceError(ValueError):
    """A source that cannot be read; the message names it, what is wrong and what to do."""


def documents(source: str, field: str = "text", limit: int | None = None) -> Iterator[str]:
    """The documents of a source, in a fixed order, without the empty ones.

    source: see FORMS. field: the key or column of the text. Raises SourceError.
    """
    found = _huggingface(source[3:], field) if source.startswith("hf:") else _files(Path(source), field)
    yield from itertools.islice((text for text in found if text.strip()), limit)


def _files(path: Path, field: str) -> Iterator[str]:
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder; name {FORMS}")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in _READERS)
    if not files:
        raise SourceError(f"{path}: holds no .jsonl, .parquet or .txt file")
    for file in files:
        if file.suffix not in _READERS:
            raise SourceError(f"{file}: not a known form; name {FORMS}")
        yield from _READERS[file.suffix](file, field)


def _jsonl(path: Path, field: str) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _text(json.loads(line.decode("utf-8-sig"))[field])
            except (ValueError, KeyError, TypeError) as error:
                raise SourceError(f"{path}: line {number}: no text under {field!r}: {error}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is not text")
    return value if value.isascii() else readable(value)


def _parquet(path: Path, field: str) -> Iterator[str]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise SourceError(f"{path}: Parquet needs pyarrow; install edge-runtime[corpora]") from error
    try:
        for batch in parquet.ParquetFile(path).iter_batches(columns=[field]):
            yield from (_text(value) for value in batch.column(field).to_pylist())
    except (arrow.ArrowException, OSError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: no texts in column {field!r}: {error}") from error


def _plain(path: Path, field: str) -> Iterator[str]:
    try:
        yield path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not readable as UTF-8: {error}") from error


_READERS = {".jsonl": _jsonl, ".parquet": _parquet, ".txt": _plain}


def _huggingface(name: str, field: str) -> Iterator[str]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise SourceError(f"hf:{name}: needs datasets; install edge-runtime[corpora]") from error
    dataset, _, split = name.partition(":")
    try:
        for row in load_dataset(dataset, split=split or "train", streaming=True):
            yield _text(row[field])
    except Exception as error:  # the library raises many types
        raise SourceError(f"hf:{name}: {str(error).splitlines()[0]}") from error


def window_shards(
    texts: Iterator[str], tokenizer: Tokenizer, length: int, root: Path, key: object, shard: int = SHARD
) -> list[Path]:
    """Tokenize texts into windows of at most `length` tokens that do not overlap; returns the shards in order.

    key: what the texts and the tokenizer are, in JSON. A shard holds the windows of `shard` documents as a RaggedMmap.
    """
    found: list[Path] = []
    while batch := list(itertools.islice(texts, shard)):

        def build(out: Path, batch: list[str] = batch) -> None:
            rows = []
            for start in range(0, len(batch), ENCODED):
                for encoded in tokenizer.encode_batch(
                    batch[start : start + ENCODED], add_special_tokens=False
                ):
                    ids = np.array(encoded.ids, dtype=np.int32)
                    rows += [ids[i : i + length] for i in range(0, len(ids), length)]
            RaggedMmap.from_lists(out / "windows", rows, dtype=np.int32)

        found.append(cached(root, f"windows{len(found):05d}", [key, length, shard], build))
    return found


class Windows(Sequence[list[int]]):
    """The windows of shards, in order: token ids, which stay in their files until they are asked for."""

    def __init__(self, shards: list[Path]) -> None:
        self._maps = [RaggedMmap(shard / "windows") for shard in shards]
        self.starts = np.cumsum([0, *(len(rows) for rows in self._maps)])
        """Where each shard begins, and the end."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        shard = int(np.searchsorted(self.starts, range(len(self))[index], side="right")) - 1
        return list(self._maps[shard][range(len(self))[index] - self.starts[shard]].tolist())


class WindowTexts(Sequence[str]):
    """The same windows as texts."""

    def __init__(self, windows: Windows, tokenizer: Tokenizer) -> None:
        self._windows, self._tokenizer = windows, tokenizer

    def __len__(self) -> int:
        return len(self._windows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return list(self._tokenizer.decode_batch(self._windows[index]))
        return str(self._tokenizer.decode(self._windows[index]))


def state_of(source: str) -> list[tuple[str, int, int]]:
    """What tells that a source on this machine has changed: its files' names, bytes and times. Empty for hf:."""
    return [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in _known_files(source)]


def sizes_of(source: str) -> list[tuple[str, int]]:
    """The same without what differs between machines that have copies: names below the source, and bytes."""
    return [(str(file.relative_to(source)), file.stat().st_size) for file in _known_files(source)]


def _known_files(source: str) -> list[Path]:
    path = Path(source)
    if source.startswith("hf:") or not path.exists():
        return []
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in _READERS)
