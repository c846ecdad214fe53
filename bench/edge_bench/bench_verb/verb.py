"""`edge-runtime bench`: tokens a second as llama-bench gives them, and what paging costs beside them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge_bench.command import check_folder, progress, require_linux, verb_command
from edge_runtime.cli.options import BUDGET_HELP
from edge_runtime.cli.verb import Verb
from edge_runtime.errors import InvalidArgumentError

DEFAULT_PROMPT, DEFAULT_GENERATE = (128, 512), (128,)
HELP = "measure a bundle: tokens a second, fetches, first tokens, memory"


def lengths(text: str) -> tuple[int, ...]:
    """ "128,512", as argparse calls it; 0 for none."""
    if not all(part.isascii() and part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of lengths, such as 128,512")
    return tuple(dict.fromkeys(int(part) for part in text.split(",") if int(part) > 0))


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def engine_list(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    parser.add_argument(
        "-p",
        "--n-prompt",
        type=lengths,
        metavar="N,...",
        help="prompt lengths, 0 for none (default: 128,512)",
    )
    parser.add_argument(
        "-n", "--n-gen", type=lengths, metavar="N,...", help="tokens to generate (default: 128)"
    )
    parser.add_argument(
        "-r", "--repetitions", type=count, default=5, metavar="N", help="of each test (default: 5)"
    )
    parser.add_argument("--no-warmup", action="store_true", help="count the first round, too")
    parser.add_argument(
        "--engine",
        type=engine_list,
        action="extend",
        default=[],
        metavar="NAME,...",
        help="engines, or engine/flavour; may be given again (default: all that the bundle has)",
    )
    parser.add_argument("-t", "--threads", type=count, default=2, metavar="N", help="(default: 2)")
    parser.add_argument("--budget", metavar="SIZE", help=BUDGET_HELP)
    parser.add_argument("--storage", choices=("auto", "direct", "mapped"), default="auto")
    parser.add_argument("--router", metavar="NAME", help="which of the bundle's routers")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="of the requests: one a line, or JSON lines with a key 'prompt' (default: eight of our own)",
    )
    parser.add_argument(
        "--requests", type=count, default=32, metavar="N", help="of the session (default: 32)"
    )
    parser.add_argument(
        "--answer-tokens", type=count, default=16, metavar="N", help="of each request (default: 16)"
    )
    parser.add_argument(
        "-o", "--output", choices=("md", "csv", "json", "jsonl"), default="md", help="(default: md)"
    )
    parser.add_argument(
        "--json", dest="output", action="store_const", const="json", help="the same as -o json"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the JSON record there, too")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write each request there, as CSV")


def run(arguments: argparse.Namespace) -> int:
    require_linux()
    from edge_bench.bench_verb.measure import Plan, measure
    from edge_bench.bench_verb.paging import write_trace
    from edge_bench.bench_verb.prompts import read_prompts
    from edge_bench.bench_verb.speeds import Test
    from edge_bench.bench_verb.tables import as_csv, as_jsonl, markdown

    check_folder(arguments.save)
    check_folder(arguments.trace)
    prompt = DEFAULT_PROMPT if arguments.n_prompt is None else arguments.n_prompt
    generate = DEFAULT_GENERATE if arguments.n_gen is None else arguments.n_gen
    if not prompt and not generate:
        raise InvalidArgumentError("-p 0 -n 0: nothing to measure")
    plan = Plan(
        bundle=arguments.bundle,
        engines=tuple(dict.fromkeys(arguments.engine)),
        tests=(*(Test("pp", n) for n in prompt), *(Test("tg", n) for n in generate)),
        tests_named=arguments.n_prompt is not None or arguments.n_gen is not None,
        repetitions=arguments.repetitions,
        warm_up=not arguments.no_warmup,
        prompts=tuple(read_prompts(arguments.prompts)),
        requests=arguments.requests,
        answer_tokens=arguments.answer_tokens,
        budget=arguments.budget,
        storage=arguments.storage,
        threads=arguments.threads,
        router=arguments.router,
    )
    record, requests = measure(plan, verb_command("bench"), progress("bench"))
    if arguments.save is not None:
        arguments.save.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if arguments.trace is not None:
        write_trace(arguments.trace, requests)
    if arguments.output == "json":
        print(json.dumps(record, indent=1))
    else:
        sys.stdout.write({"md": markdown, "csv": as_csv, "jsonl": as_jsonl}[arguments.output](record))
    return 0


VERB = Verb("bench", HELP, add_arguments, run)
