"""A bundle made ready: pager, router and engine, which sessions share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime import _core, engines
from edge_runtime.bundle import Bundle
from edge_runtime.embedders import STATIC, open_embedder
from edge_runtime.engines import Engine
from edge_runtime.errors import EdgeRuntimeError, InvalidArgumentError, UnsupportedError
from edge_runtime.manifest import Memory, RouterSpec
from edge_runtime.pager import Pager, StorageKind, parse_budget
from edge_runtime.router import Router
from edge_runtime.routing import RoutingPolicy
from edge_runtime.stats import resident_memory
from edge_runtime.text import ChatTemplate, Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from edge_runtime.session import Session


@dataclass(frozen=True)
class Footprint:
    """What a runtime holds, in bytes. The budget covers blocks of the bank and nothing else."""

    bank_bytes: int
    budget_bytes: int
    kv_bytes: int  # of one session
    weights_bytes: int  # the program's files
    engine_constant_bytes: int  # resident with the engine loaded and nothing opened


@dataclass
class Runtime:
    """The pager, router and engine of one bundle; `session()` is cheap and shares them.

    They are freed with the runtime and the last of its sessions.
    """

    bundle: Bundle
    tokenizer: Tokenizer
    engine: Engine
    pager: Pager | None
    router: Router | None
    footprint: Footprint

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        budget: int | str | None = None,
        engine: str | None = None,
        storage: StorageKind = "auto",
        threads: int = 2,
        router: str | None = None,
    ) -> Runtime:
        """Opens a bundle directory.

        Args:
            budget: for bank bytes, such as 8_000_000 or "8MB"; None fits two leases, so that one topic stays in
                memory while the next arrives.
            engine: which of the bundle's engines, or engine/flavour; None takes its first program's.
            storage: how the bank is read: see `pager.StorageKind`.
            threads: of the engine.
            router: which of the bundle's embedders routes; None takes its default, or another where the default needs
                an engine that is not installed here.

        Raises:
            EdgeRuntimeError: see `edge_runtime.errors`; the message names the file and what to do.
        """
        if threads < 1:
            raise InvalidArgumentError(f"threads {threads}: it must be 1 or more")
        opened = Bundle.open(bundle)
        manifest = opened.manifest
        if not manifest.programs:
            raise UnsupportedError(f"{opened.directory}: it has no program: export it for an engine")
        name, _, flavour = (engine or manifest.programs[0].engine).partition("/")
        program = next(
            (one for one in manifest.programs if one.engine == name and flavour in ("", one.flavour)), None
        )
        if program is None:
            there = ", ".join(sorted({f"{one.engine}/{one.flavour}" for one in manifest.programs}))
            raise UnsupportedError(f"{opened.directory}: it has no program for {engine!r}; it has {there}")
        engines.load(name)
        engine_constant = resident_memory().total
        size = 0
        pager = prompt_router = None
        tokenizer = load_tokenizer(opened)
        if manifest.memory is not None:
            size = default_budget(manifest.memory) if budget is None else parse_budget(budget)
            try:
                pager = Pager(opened.level_paths, size, storage, opened.blocked, opened.removed)
            except EdgeRuntimeError:
                if opened.is_current():
                    raise
                # `edge-runtime bank` has changed the bundle since, and unlinked level files of the old revision.
                return cls.open(bundle, budget, engine, storage, threads, router)
        if manifest.router is not None:
            tree = _core.Tree(str(opened.path_of(manifest.router.tree)))
            embedder = open_embedder(opened, router or router_for(manifest.router, name), threads, tokenizer)
            prompt_router = Router(tree, embedder, opened.blocked)
        opened_engine = engines.open_engine(opened, threads, engine or name)
        return cls(
            bundle=opened,
            tokenizer=tokenizer,
            engine=opened_engine,
            pager=pager,
            router=prompt_router,
            footprint=Footprint(
                bank_bytes=opened.bank_bytes,
                budget_bytes=size,
                kv_bytes=opened_engine.kv_bytes,
                weights_bytes=opened.bytes_of(program),
                engine_constant_bytes=engine_constant,
            ),
        )

    def session(self, routing: RoutingPolicy | None = None) -> Session:
        """A new conversation, with a KV cache of its own; `routing` says when it routes, by default each turn."""
        from edge_runtime.session import Session

        return Session(self, routing)

    def chat_template(self) -> ChatTemplate:
        """The bundle's template; plain text where it has none."""
        tokens = self.bundle.manifest.tokens
        bos, eos = (
            self.tokenizer.token(token) if token is not None else ""
            for token in (tokens.bos, tokens.eos[0] if tokens.eos else None)
        )
        return ChatTemplate(self.bundle.manifest.chat_template, bos, eos)


def router_for(router: RouterSpec, engine: str) -> str:
    """The embedder to take where none is named: the default, or, where its engine is not installed here, one that needs
    none beside `engine`."""
    at_hand = (STATIC, engine)
    try:
        default = router.embedder()
        if default.engine not in at_hand:
            engines.load(default.engine)
    except UnsupportedError:
        return next((one.name for one in router.embedders if one.engine in at_hand), router.default)
    return default.name


def default_budget(memory: Memory) -> int:
    """Bytes of two leases: a path, or the generic memory where that is larger."""
    blocks = {level.level: level.block_bytes for level in memory.levels}
    path = sum(size for level, size in blocks.items() if level > 0)
    return 2 * max(path, blocks.get(0, 0))
