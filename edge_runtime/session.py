"""One conversation: route, fetch, prefill, decode."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_runtime.errors import ContextOverflowError, InvalidArgumentError, UnsupportedError
from edge_runtime.leasing import Leasing, MemoryMode
from edge_runtime.pager import Node
from edge_runtime.prefix import PrefixCache
from edge_runtime.router import Route
from edge_runtime.routing import RoutingPolicy
from edge_runtime.runtime import Runtime
from edge_runtime.sampling import Sampler
from edge_runtime.stats import GenerationStats, resident_memory
from edge_runtime.text import Detokenizer, Message, StopTexts, readable


@dataclass(frozen=True)
class _Request:
    """What one generation was asked for, defaults filled in."""

    max_tokens: int
    sampler: Sampler
    memory: MemoryMode
    blocked: tuple[Node, ...]
    stop: tuple[str, ...]


class Session:
    """A KV cache and a lease of its own over a shared `Runtime`. Not thread-safe; close it to give up its lease.

    `stats` describes the last generation, completely once its iterator has ended.
    """

    def __init__(self, runtime: Runtime, routing: RoutingPolicy | None = None) -> None:
        self.runtime = runtime
        self.routing = routing or RoutingPolicy()
        self.stats = GenerationStats()
        self._context = PrefixCache(runtime.engine.new_context())
        self._memory = Leasing(runtime, self.routing)
        # Sampled last, and not yet in the KV cache.
        self._pending: list[int] = []
        self._tokens: list[int] = []  # of the conversation, all but those that wait
        self._messages: list[Message] = []
        self._transcript = ""  # the text in the KV cache

    @classmethod
    def open(cls, bundle: str | Path, routing: RoutingPolicy | None = None, **options: Any) -> Session:
        """A runtime and its one session; `options` are those of `Runtime.open`."""
        return cls(Runtime.open(bundle, **options), routing)

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        memory: MemoryMode | None = None,
        blocked: Sequence[Node] = (),
        stop: Sequence[str] | None = None,
    ) -> Iterator[str]:
        """Answers a prompt by itself, yielding text as its characters complete.

        What the KV cache holds of the prompt's beginning, made with the same blocks, is not computed again, where the
        engine gives the same logits then as without (`stats.cached_tokens`).

        Args:
            max_tokens, temperature, stop: None takes the bundle's defaults. Stop texts are not yielded.
            memory: "fetched" reads the routed path's blocks, "generic" the generic memory, "none" no memory; None
                is "fetched" where the bundle has a bank.
            blocked: (level, node) pairs that routing avoids, each with its subtree.

        Raises:
            ContextOverflowError: the prompt is longer than the context; nothing was read.
            NeverFitsError, BusyError: the budget cannot hold the path's blocks.
            ChecksumError, StorageError: the blocks could not be read.
            InvalidArgumentError: an argument is out of range.
        """
        request = self._request(
            max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, memory, blocked, stop
        )
        self._forget()
        prompt = readable(prompt)
        return self._generate(prompt, prompt, request)

    def chat(
        self,
        message: str,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        memory: MemoryMode | None = None,
        blocked: Sequence[Node] = (),
        stop: Sequence[str] | None = None,
    ) -> Iterator[str]:
        """Answers the next message of a conversation; arguments and errors as in `generate`.

        The message alone is routed, as `routing` says, so that a change of topic changes the blocks; the KV cache is
        kept.
        """
        request = self._request(
            max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, memory, blocked, stop
        )
        return self._chat(readable(message), request)

    def route(self, prompt: str, blocked: Sequence[Node] = ()) -> Route:
        """The path that a prompt takes by itself. UnsupportedError where the bundle has no router."""
        if self.runtime.router is None:
            raise UnsupportedError(f"{self.runtime.bundle.directory}: it has no router")
        return self.runtime.router.route(prompt, blocked, top_paths=self.routing.top_paths)

    def reset(self) -> None:
        """Empties the KV cache and the conversation. The lease stays until the next fetch needs its place."""
        self._context.reset()
        self._forget()

    def _forget(self) -> None:
        """A new conversation; the KV cache holds what it held."""
        self._pending, self._messages, self._transcript, self._tokens = [], [], "", []
        self._memory.reset()

    def close(self) -> None:
        """Gives up the lease; the session can be used again."""
        self._memory.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _request(
        self,
        max_tokens: int | None,
        temperature: float | None,
        top_k: int | None,
        top_p: float,
        min_p: float,
        repetition_penalty: float,
        seed: int,
        memory: MemoryMode | None,
        blocked: Sequence[Node],
        stop: Sequence[str] | None,
    ) -> _Request:
        defaults = self.runtime.bundle.manifest.generation
        count = defaults.max_tokens if max_tokens is None else max_tokens
        if count < 1:
            raise InvalidArgumentError(f"max_tokens {count}: it must be 1 or more")
        if memory is None:
            memory = "none" if self.runtime.pager is None else "fetched"
        if memory not in ("fetched", "generic", "none"):
            raise InvalidArgumentError(f"memory {memory!r}: it is fetched, generic or none")
        if memory != "none" and self.runtime.pager is None:
            raise UnsupportedError(
                f"{self.runtime.bundle.directory}: it has no memory bank: ask for memory 'none'"
            )
        return _Request(
            count,
            Sampler(
                defaults.temperature if temperature is None else temperature,
                top_k,
                top_p,
                seed,
                min_p,
                repetition_penalty,
            ),
            memory,
            tuple(blocked),
            defaults.stop if stop is None else tuple(stop),
        )

    def _chat(self, message: str, request: _Request) -> Iterator[str]:
        messages = [*self._messages, {"role": "user", "content": message}]
        rendered = self.runtime.chat_template().render(messages)
        if rendered.startswith(self._transcript):
            new = rendered[len(self._transcript) :]
        else:
            # The template rewrote what went before: the KV cache serves as far as that is the same.
            self._pending, self._tokens, new = [], [], rendered
        self._transcript = rendered
        yield from self._generate(new, message, request)
        self._messages = [*messages, {"role": "assistant", "content": self._transcript[len(rendered) :]}]

    def _prompt_tokens(self, text: str) -> list[int]:
        """The text's tokens behind those that wait; BOS first in an empty KV cache."""
        tokens = self.runtime.bundle.manifest.tokens
        ids = self.runtime.tokenizer.encode(text)
        if not self._tokens and tokens.add_bos and tokens.bos is not None and ids[:1] != [tokens.bos]:
            ids = [tokens.bos, *ids]
        if not ids:
            raise InvalidArgumentError("the prompt is empty")
        ids = self._pending + ids
        left = self._context.context_length - len(self._tokens)
        if len(ids) > left:
            raise ContextOverflowError(
                f"the prompt has {len(ids)} tokens, and {left} are left of the context's "
                f"{self._context.context_length}: shorten it"
            )
        return ids

    def _generate(self, text: str, routed: str, request: _Request) -> Iterator[str]:
        start = time.perf_counter()
        self.stats = stats = GenerationStats(**asdict(self.runtime.footprint))
        prompt = self._prompt_tokens(text)
        stats.prompt_tokens = len(prompt)
        handle = self._memory.fetch(routed, request.memory, request.blocked, stats)
        logits, stats.cached_tokens = self._context.prefill(self._tokens, prompt, handle, self._memory.key)
        self._pending = []
        follows = request.memory == "fetched" and self.routing.when == "tokens"
        recent = list(prompt)
        self._tokens += prompt
        request.sampler.accept(self._tokens)
        pieces = Detokenizer(self.runtime.tokenizer, prompt)
        stop, eos = StopTexts(request.stop), self.runtime.bundle.manifest.tokens.eos
        first = last = 0.0
        try:
            while True:
                token = request.sampler(logits)
                last = time.perf_counter()
                stats.generated_tokens += 1
                if stats.generated_tokens == 1:
                    first = last
                    stats.ttft_ms = 1e3 * (first - start)
                if token in eos:
                    break
                self._pending = [token]
                piece = pieces.push(token)
                self._transcript += piece
                if shown := stop.push(piece):
                    stats.text += shown
                    yield shown
                full = self._context.position == self._context.context_length
                if stop.reached or full or stats.generated_tokens == request.max_tokens:
                    break
                recent.append(token)
                request.sampler.accept([token])
                if follows and stats.generated_tokens % self.routing.every == 0:
                    handle = self._memory.follow(recent, request.blocked, stats, handle)
                logits = self._context.append([token], handle, self._memory.key)
                self._tokens.append(token)
                self._pending = []
            rest = pieces.flush()
            self._transcript += rest
            if not stop.reached and (shown := stop.push(rest) + stop.flush()):
                stats.text += shown
                yield shown
        finally:
            self._finish(stats, last - first)

    def _finish(self, stats: GenerationStats, decode_seconds: float) -> None:
        if stats.generated_tokens > 1 and decode_seconds > 0:
            stats.decode_tokens_per_s = (stats.generated_tokens - 1) / decode_seconds
        self._memory.finish(stats)
        memory = resident_memory()
        stats.resident_bytes = memory.total
        stats.resident_anonymous_bytes, stats.resident_file_bytes = memory.anonymous, memory.file
