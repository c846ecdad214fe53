"""llama.cpp, opened to be measured: through its C interface, a call a token as in llama-bench, without sampling."""

from __future__ import annotations

import ctypes
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from edge_bench.charged import peak_resident
from edge_bench.peers.swapping import Swap, prepare, timed_swap
from edge_bench.quantised import loss
from edge_runtime.errors import BadFormatError, InvalidArgumentError


class LlamaCpp:
    """One model and one context. Its public methods give JSON values, and are what a worker can be asked."""

    def __init__(self) -> None:
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._model: Any = None
        self._context: Any = None
        self._adapters: dict[str, Any] = {}

    def open(self, model: str, threads: int, context_length: int, repack: bool = True) -> int:
        """Its parameters. repack: as it does by default; else it computes on the mapped rows."""
        options = llama_cpp.llama_model_default_params()
        options.load_mode, options.use_extra_bufts = llama_cpp.LLAMA_LOAD_MODE_MMAP, repack
        self._model = llama_cpp.llama_model_load_from_file(model.encode(), options)
        if not self._model:
            raise BadFormatError(f"{model}: llama.cpp does not load it")
        wanted = llama_cpp.llama_context_default_params()  # flash attention is its own choice there
        wanted.n_ctx = context_length
        wanted.n_threads = wanted.n_threads_batch = threads
        wanted.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, wanted)
        if not self._context:
            raise BadFormatError(f"{model}: llama.cpp makes no context of {context_length} tokens for it")
        return int(llama_cpp.llama_model_n_params(self._model))

    def speed(self, tokens: int, decode: bool, memory: str) -> float:
        """Seconds of a prefill of so many tokens, or of as many decoded one by one, in an empty context."""
        if memory != "none":
            raise InvalidArgumentError("llama.cpp has no memory")
        vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        ids = np.random.default_rng(0).integers(0, vocabulary, tokens).astype(np.int32)
        self._clear()
        start = time.perf_counter()
        if decode:
            for i in range(tokens):
                self._append(ids[i : i + 1])
        else:
            self._append(ids)
        return time.perf_counter() - start

    def losses(self, ids: list[int]) -> list[float]:
        """Nats of each token but the first, given all before it."""
        self._clear()
        size, found = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)), []
        for token, following in pairwise(ids):
            self._append(np.array([token], np.int32))
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, -1), (size,))
            found.append(loss(logits, following))
        return found

    def peak(self) -> int:
        return peak_resident()

    def swap(self, state: str, files: list[str], number: int) -> Swap:
        """To the adapter files[number] from the one before it. resident: both are loaded, and one is applied."""
        old, new = files[number - 1], files[number]
        self._clear()
        self._apply(old)
        if state == "resident":
            self._load(new)
        else:
            self._free(new)
            prepare(state, [Path(new)])
        token = np.zeros(1, np.int32)
        return timed_swap(lambda: self._apply(new), lambda: self._append(token))

    def close_swaps(self) -> None:
        llama_cpp.llama_set_adapters_lora(self._context, None, 0, None)
        for path in list(self._adapters):
            self._free(path)

    def _load(self, path: str) -> Any:
        if path not in self._adapters:
            self._adapters[path] = llama_cpp.llama_adapter_lora_init(self._model, path.encode())
            if not self._adapters[path]:
                raise BadFormatError(f"{path}: llama.cpp does not load this adapter")
        return self._adapters[path]

    def _apply(self, path: str) -> None:
        one = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(self._load(path))
        llama_cpp.llama_set_adapters_lora(self._context, one, 1, (ctypes.c_float * 1)(1.0))

    def _free(self, path: str) -> None:
        adapter = self._adapters.pop(path, None)
        if adapter is not None:
            llama_cpp.llama_adapter_lora_free(adapter)

    def _clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)

    def _append(self, ids: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        """Logits are those of the last token."""
        pointer = ids.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
        failed = llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(pointer, len(ids)))
        if failed:
            raise InvalidArgumentError(f"llama_decode of {len(ids)} tokens failed with {failed}")
        llama_cpp.llama_synchronize(self._context)
