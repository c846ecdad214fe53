"""python -m edge_pretrain.router VERB: trains the lightweight router, and judges it (docs/router.md).

train RUN        a finished run of `edge-runtime pretrain` gets a static router beside its checkpoint
evaluate RUN     agreement and answers on its validation questions and on the reported ones
corpus -o DIR    a tree and a static router over any documents, judged on any prompts
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console

from edge_pretrain.router.config import DistillConfig, is_trained
from edge_runtime.errors import EdgeRuntimeError


def add_distill_options(parser: argparse.ArgumentParser, default: DistillConfig) -> None:
    """One option for each field of DistillConfig."""
    group = parser.add_argument_group("distillation")
    for field in fields(DistillConfig):
        value = getattr(default, field.name)
        group.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(value), default=value, help=f"(default: {value})"
        )


def distill_config(arguments: argparse.Namespace) -> DistillConfig:
    return DistillConfig(**{field.name: getattr(arguments, field.name) for field in fields(DistillConfig)})


def set_threads(arguments: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(arguments.threads)


def train(arguments: argparse.Namespace, console: Console) -> None:
    config = distill_config(arguments)
    if is_trained(arguments.run / "checkpoint", config):
        console.print(f"{arguments.run / 'checkpoint/router'}: up to date")
        return
    with console.status("loading torch"):
        from edge_pretrain.router.training import TrainedRun

        set_threads(arguments)
    run = TrainedRun(arguments.run, arguments.embedder, console)
    found = run.train(config)
    size = run.static_path.stat().st_size / 1e6
    levels = ", ".join(f"{share:.1%}" for share in found.agreement)
    console.print(f"wrote {run.static_path}, {size:.2f} MB")
    console.print(f"{found.questions} validation questions: agreement with MiniLM by level {levels}")
    console.print(f"answers {found.answers['static']:.1%}, with MiniLM {found.answers['minilm']:.1%}")
    console.print(f"{'fit' if found.default else 'not fit'} to be a bundle's default")


def evaluate(arguments: argparse.Namespace, console: Console) -> None:
    from edge_pretrain.router.evaluation import evaluate_run, show
    from edge_pretrain.router.training import TrainedRun

    set_threads(arguments)
    results = evaluate_run(TrainedRun(arguments.run, arguments.embedder, console))
    if arguments.json:
        print(json.dumps(results))
    else:
        show(results, Console(highlight=False, soft_wrap=True))


def corpus(arguments: argparse.Namespace, console: Console) -> None:
    from edge_pretrain.router.corpus_router import CorpusConfig, judge_corpus, show

    set_threads(arguments)
    config = CorpusConfig(
        arguments.fanout,
        arguments.depth,
        arguments.vocab_size,
        arguments.tokenizer,
        arguments.cuts,
        arguments.seed,
    )
    results = judge_corpus(
        arguments.documents,
        arguments.prompts,
        arguments.texts,
        config,
        distill_config(arguments),
        arguments.out,
        arguments.embedder,
        console,
    )
    show(results, Console(highlight=False, soft_wrap=True))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m edge_pretrain.router",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace, Console], None]) -> argparse.ArgumentParser:
        made = verbs.add_parser(name)
        made.set_defaults(action=run)
        made.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
        made.add_argument("--embedder", metavar="DIR_OR_ID", help="all-MiniLM-L6-v2")
        return made

    made = verb("train", train)
    made.add_argument("run", type=Path, metavar="RUN")
    add_distill_options(made, DistillConfig())
    made = verb("evaluate", evaluate)
    made.add_argument("run", type=Path, metavar="RUN")
    made.add_argument("--json", action="store_true")
    made = verb("corpus", corpus)
    made.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    made.add_argument("--documents", type=Path, required=True, metavar="FILE", help="one document a line")
    made.add_argument(
        "--prompts", type=Path, required=True, action="append", metavar="FILE", help="one prompt a line"
    )
    made.add_argument(
        "--texts",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="texts to train on too, one a line: the wider they range, the better strange prompts are routed",
    )
    made.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json (default: trained on the documents)"
    )
    made.add_argument("--fanout", type=int, default=16)
    made.add_argument("--depth", type=int, default=3)
    made.add_argument("--vocab-size", type=int, default=1 << 14)
    made.add_argument("--cuts", type=int, default=80_000)
    made.add_argument("--seed", type=int, default=0)
    add_distill_options(made, replace(DistillConfig(), width=192, ngram_rows=1 << 14))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        arguments.action(arguments, Console(stderr=True, highlight=False, soft_wrap=True))
    except (EdgeRuntimeError, ValueError, OSError) as error:  # checkpoints and embedders raise ValueErrors
        print(f"edge_pretrain.router: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("edge_pretrain.router: stopped; run again to resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
