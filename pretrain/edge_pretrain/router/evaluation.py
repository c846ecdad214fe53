"""A run's static router on questions it was not chosen by, beside MiniLM."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from edge_pretrain.provenance import provenance
from edge_pretrain.router.judge import agreement, verdict
from edge_pretrain.router.training import TrainedRun
from edge_pretrain.scores import test_questions, validation_questions


def evaluate_run(run: TrainedRun) -> dict[str, Any]:
    """Agreement by level and the share of right answers by router: people and places, elements, common texts."""
    static, results = run.static(), {}
    sets = {
        "people and places": validation_questions(run.prepared),
        "elements": test_questions(run.prepared),
    }
    for name, questions in sets.items():
        found = verdict(run.prepared, run.checkpoint, questions, run.teacher, static)
        results[name] = asdict(found)
    prompts = [first for first, _ in run.prepared.common]
    results["common texts"] = {
        "questions": len(prompts),
        "agreement": agreement(run.prepared.tree, static(prompts), run.teacher(prompts)),
        "answers": {},
    }
    return {
        "bytes": run.static_path.stat().st_size,
        "sets": results,
        "provenance": provenance(run.seed, {"run": run.checkpoint.config["provenance"]["fingerprint"]}),
    }


def show(results: dict[str, Any], console: Console) -> None:
    """The same as a table."""
    depth = len(next(iter(results["sets"].values()))["agreement"])
    levels = [f"level {level}" for level in range(1, depth + 1)]
    title = f"static, {results['bytes'] / 1e6:.2f} MB, beside MiniLM"
    table = Table("prompts", "count", *levels, "answers", "with MiniLM", title=title)
    for name, found in results["sets"].items():
        shares = [f"{share:.1%}" for share in found["agreement"]]
        answers = [
            f"{found['answers'][key]:.1%}" if found["answers"] else "-" for key in ("static", "minilm")
        ]
        table.add_row(name, str(found["questions"]), *shares, *answers)
    console.print(table)
