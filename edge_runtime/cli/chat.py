"""`edge-runtime chat`: a conversation; each turn is routed anew, the KV cache is kept."""

from __future__ import annotations

import argparse
import contextlib
import sys

from edge_runtime.cli.options import (
    add_generation_options,
    add_runtime_options,
    generation_options,
    open_runtime,
    stats_lines,
    take_any_input,
)
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import ContextOverflowError, InvalidArgumentError

COMMANDS = "/reset forgets the conversation, /stats says what the last turn cost, /quit ends"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runtime_options(parser)
    add_generation_options(parser)


def run(arguments: argparse.Namespace) -> int:
    if sys.stdin.isatty():
        # Line editing and history, where the terminal has them.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
    take_any_input()
    runtime = open_runtime(arguments)
    options = generation_options(arguments)
    print(f"{runtime.bundle.manifest.name}: {COMMANDS}", file=sys.stderr)
    answered = False
    with runtime.session() as session:
        # Nothing is generated before the text is asked for: this refuses options once, not at every message.
        session.chat("", **options)  # type: ignore[arg-type]
        while True:
            try:
                message = input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                return 0
            if message == "/quit":
                return 0
            if message == "/reset":
                session.reset()
            elif message == "/stats":
                lines = stats_lines(session) if answered else ["no turn yet"]
                print("\n".join(lines), file=sys.stderr)
            elif message:
                try:
                    for text in session.chat(message, **options):  # type: ignore[arg-type]
                        print(text, end="", flush=True)
                    print()
                    answered = True
                except ContextOverflowError as error:
                    # The conversation is as it was; the next message may be shorter.
                    print(f"edge-runtime: {error}; /reset starts a new conversation", file=sys.stderr)
                except InvalidArgumentError as error:
                    print(f"edge-runtime: {error}", file=sys.stderr)


VERB = Verb("chat", f"Talk, turn by turn: {COMMANDS}.", add_arguments, run)
