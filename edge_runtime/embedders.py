"""The router's embedders: which engine runs one, and the lightweight one, which needs none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime import _core, engines
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadFormatError, TokenizerMismatchError, UnsupportedError
from edge_runtime.manifest import EmbedderSpec
from edge_runtime.router import Embedder
from edge_runtime.text import Tokenizer, load_tokenizer, open_tokenizer

STATIC = "static"


class StaticEmbedder:
    """Tables over token ids, pooled and mapped (docs/bundle-format.md): see `router.Embedder`. Thread-safe."""

    def __init__(self, bundle: Bundle, spec: EmbedderSpec, tokenizer: Tokenizer) -> None:
        path = bundle.path_of(spec.path)
        self._tokenizer, self._core = tokenizer, _core.StaticEmbedder(str(path))
        router = bundle.manifest.router
        assert router is not None
        if self._core.dim != router.dim:
            raise BadFormatError(
                f"{path}: its embeddings have {self._core.dim} values, the tree needs {router.dim}: "
                "take the embedder that was trained with this tree"
            )
        if tokenizer.vocab_size > self._core.vocab_size:
            raise TokenizerMismatchError(
                f"{path}: it knows {self._core.vocab_size} tokens, the tokenizer has {tokenizer.vocab_size}: "
                "take the embedder that was trained with this tokenizer"
            )

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        return self._core.embed(np.array(self._tokenizer.encode(text), np.uint32))


def open_embedder(
    bundle: Bundle, name: str | None, threads: int, anchor_tokenizer: Tokenizer | None = None
) -> Embedder:
    """Opens an embedder of the bundle, the default one where `name` is None.

    anchor_tokenizer: the bundle's own, where it is already loaded: a static embedder shares it.

    Raises:
        UnsupportedError: the bundle has no router, or the embedder's engine is not installed.
        NotFoundError: no embedder of that name.
        BadFormatError, TokenizerMismatchError: its files are damaged or do not belong together.
    """
    router = bundle.manifest.router
    if router is None:
        raise UnsupportedError(f"{bundle.directory}: it has no router")
    spec = router.embedder(name)
    if spec.engine != STATIC:
        return engines.load(spec.engine).open_embedder(bundle, spec.name, threads)
    if spec.tokenizer == bundle.manifest.tokenizer_path:
        tokenizer = anchor_tokenizer or load_tokenizer(bundle)
    else:
        tokenizer = open_tokenizer(bundle.path_of(spec.tokenizer))
    return StaticEmbedder(bundle, spec, tokenizer)
