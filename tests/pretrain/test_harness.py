import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("lm_eval", reason="lm-eval is not installed; edge-runtime[harness] brings it")

from lm_eval.api.instance import Instance

from edge_pretrain.checkpoint import load
from edge_pretrain.harness import MemoryLM, main

TASK = """\
task: atomic
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""


def instance(kind: str, arguments: tuple, doc: int = 0) -> Instance:
    return Instance(kind, {}, arguments, 0, metadata=("task", doc, 1))


def likelihood(directory: Path, leaf: int, context: str, continuation: str) -> float:
    """Spelt out: the sum of the continuation's log probabilities with the leaf's memory."""
    made = load(directory)
    ids = made.tokenizer.encode(context + continuation, add_special_tokens=False).ids
    begun = len(made.tokenizer.encode(context, add_special_tokens=False).ids)
    memory = made.memories.fetch(torch.tensor([leaf]), torch.tensor([False]))
    with torch.inference_mode():
        chances = F.log_softmax(made.anchor(torch.tensor([ids]), memory)[0], dim=-1)
    return sum(float(chances[i - 1, ids[i]]) for i in range(begun, len(ids)))


def test_likelihoods_read_the_memory_of_the_context(tiny_checkpoint: Path):
    model = MemoryLM(tiny_checkpoint)
    context = "Radon. Radon is a noble gas in period 6 of the periodic table. Its symbol is"
    (found,) = model.loglikelihood([instance("loglikelihood", (context, " Rn"))])
    assert found[0] == pytest.approx(
        likelihood(tiny_checkpoint, model.leaf(context), context, " Rn"), abs=1e-3
    )
    others = [MemoryLM(tiny_checkpoint, mode) for mode in ("baseline", "generic", "blocked")]
    values = {m.loglikelihood([instance("loglikelihood", (context, " Rn"))])[0][0] for m in others}
    assert len(values | {found[0]}) == 4
    (rolling,) = model.loglikelihood_rolling([instance("loglikelihood_rolling", ("Radon is a gas.",))])
    assert rolling < 0


def test_schema_tasks_are_routed_by_what_their_choices_share(tiny_checkpoint: Path, monkeypatch):
    model, routed = MemoryLM(tiny_checkpoint), []
    monkeypatch.setattr(model, "leaf", lambda text: routed.append(text) or 0)
    contexts = ("Radon is a noble gas, so Radon", "Radon is a noble gas, so Lisbon")
    model.loglikelihood([instance("loglikelihood", (context, " glows")) for context in contexts])
    assert routed == ["Radon is a noble gas, so"] * 2


def test_a_generation_ends_at_its_stop_text(tiny_checkpoint: Path):
    model = MemoryLM(tiny_checkpoint)
    (whole,) = model.generate_until([instance("generate_until", ("Lisbon is", {"max_gen_toks": 6}))])
    stop = whole[len(whole) // 2]
    (cut,) = model.generate_until(
        [instance("generate_until", ("Lisbon is", {"until": [stop], "max_gen_toks": 6}))]
    )
    assert cut == whole[: whole.index(stop)]


def test_a_task_file_with_local_data_is_evaluated(tiny_checkpoint: Path, tmp_path: Path):
    data = tmp_path / "data.jsonl"
    rows = [{"question": f"Radon {i} is", "choices": ["a gas", "a city"], "answer": i % 2} for i in range(4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "atomic.yaml").write_text(TASK.format(data=data))
    # A process of its own: where the hub's client looks for the network is decided when it is imported.
    command = [
        sys.executable,
        "-m",
        "edge_pretrain.harness",
        str(tiny_checkpoint),
        str(tmp_path / "atomic.yaml"),
    ]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=offline)
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert 0 <= found["atomic"]["acc,none"] <= 1


def test_a_bad_task_file_is_one_line(tiny_checkpoint: Path, tmp_path: Path, capsys):
    assert main([str(tiny_checkpoint), str(tmp_path / "none.yaml"), "--mode", "baseline"]) == 1
    assert "none.yaml: not readable" in capsys.readouterr().err
