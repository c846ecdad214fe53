"""The anchor's tokenizer: byte-level BPE whose digits are tokens of their own, so that numbers are spelt."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BOS, EOS = "<|bos|>", "<|eos|>"
BOS_ID, EOS_ID = 0, 1


@dataclass(frozen=True)
class Markers:
    """The tokens that open and close a document in a sequence; None: nothing does."""

    bos: int | None
    eos: int | None

    @property
    def opening(self) -> list[int]:
        return [] if self.bos is None else [self.bos]

    @property
    def closing(self) -> list[int]:
        return [] if self.eos is None else [self.eos]


OWN_MARKERS = Markers(BOS_ID, EOS_ID)


def train_tokenizer(texts: Iterable[str], vocab_size: int, path: Path) -> None:
    """Train on the texts and write a Hugging Face tokenizer.json of at most `vocab_size` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))


def open_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    """An existing tokenizer. Raises ValueError where it does not fit an anchor of this vocabulary."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path}: not a tokenizer: {error}") from error
    if tokenizer.get_vocab_size() > vocab_size:
        raise ValueError(f"{path}: {tokenizer.get_vocab_size()} tokens; tokens.vocab_size is {vocab_size}")
    if [tokenizer.token_to_id(token) for token in (BOS, EOS)] != [BOS_ID, EOS_ID]:
        raise ValueError(f"{path}: {BOS} and {EOS} must be its tokens {BOS_ID} and {EOS_ID}")
    return tokenizer
