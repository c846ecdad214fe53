"""Teaching a tiny model: blocks learn, everything else stays, a stopped run ends with the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bank_bundle import blocks

from edge_export.native import write_native
from edge_pretrain import checkpoint
from edge_pretrain.model import Anchor, AnchorConfig, MemoryRows
from edge_pretrain.teach import training
from edge_pretrain.teach.documents import Section
from edge_pretrain.teach.pipeline import Request, teach
from edge_pretrain.teach.placement import Routing, place_personally
from edge_pretrain.teach.training import Example, Lesson, TeachConfig, TeachingInterruptedError, train
from edge_pretrain.teach.weights import anchor_state, load_anchor
from edge_runtime.administration.provenance import Teaching
from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError

LAYERS = (0, 1)
CONFIG = TeachConfig(epochs=3, batch=2, seed=1)


def silent(_done: int, _total: int, _loss: float) -> None:
    pass


@pytest.fixture(scope="module")
def anchor() -> Anchor:
    made = Anchor(AnchorConfig(2, 16, 2, 8, 32, 20, 16))
    made.initialize(torch.Generator().manual_seed(1))
    return made.eval().requires_grad_(False)


def lessons(count: int) -> list[Lesson]:
    generator = torch.Generator().manual_seed(2)

    def block(rows: int) -> torch.Tensor:
        return 0.2 * torch.randn(2, 3, rows, 16, generator=generator)

    examples = [[Example([1, 2, 3 + i, 4 + i, 5], 2), Example([1, 6, 7, 8 + i], 2)] for i in range(count)]
    return [Lesson(10 + i, block(3), block(4 + i % 2), examples[i]) for i in range(count)]


def test_blocks_learn_their_own_texts(anchor: Anchor, tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in anchor.state_dict().items()}
    given, losses = lessons(3), list[float]()
    taught = train(
        anchor,
        LAYERS,
        given,
        TeachConfig(100, 4, 2e-2),
        tmp_path / "s",
        "f",
        lambda _d, _t, loss: losses.append(loss),
    )
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    for lesson in given:
        for example in lesson.examples:
            rows = torch.cat([lesson.beside, taught[lesson.node]], dim=2)[None]
            logits = anchor(torch.tensor([example.tokens]), MemoryRows(rows, LAYERS))[0]
            assert logits.argmax(-1)[example.start - 1 : -1].tolist() == example.tokens[example.start :]
    assert all(torch.equal(weights[name], tensor) for name, tensor in anchor.state_dict().items())


def test_the_penalty_holds_a_block_near_its_old_self(anchor: Anchor, tmp_path: Path) -> None:
    given = lessons(1)
    far, near = (
        train(anchor, LAYERS, given, TeachConfig(20, 2, 1e-2, penalty), tmp_path / str(penalty), "f", silent)[
            10
        ]
        for penalty in (0.0, 10.0)
    )
    assert (near - given[0].block).norm() < 0.2 * (far - given[0].block).norm()


def test_a_stopped_run_ends_with_the_same_bits(
    anchor: Anchor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "GROUP", 2)
    given = lessons(3)
    whole = train(anchor, LAYERS, given, CONFIG, tmp_path / "whole", "f", silent)

    def interrupt_at(step: int) -> training.Progress:
        import signal

        return lambda done, _total, _loss: signal.raise_signal(signal.SIGINT) if done == step else None

    for step in (2, 7):  # in the first group and in the second
        with pytest.raises(TeachingInterruptedError, match=f"step {step} of"):
            train(anchor, LAYERS, given, CONFIG, tmp_path / "cut", "f", interrupt_at(step))
    cut = train(anchor, LAYERS, given, CONFIG, tmp_path / "cut", "f", silent)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[node], cut[node]) for node in whole)


def request(bundle: Path, folder: Path, out: Path, checkpoint: Path | None, **more: object) -> Request:
    given: dict[str, object] = {"replay": None, "into": "personal", "rows": 4, "threads": 1, "config": CONFIG}
    return Request(bundle, folder, out, checkpoint, **(given | more))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "folder"
    found.mkdir()
    (found / "a.txt").write_text(
        "Argon\nArgon is a noble gas in period 3. Its symbol is Ar. It was found in 1894.\n"
    )
    (found / "b.txt").write_text("Ada Lee\nAda Lee is a poet. She was born in Rome.\n")
    return found


@pytest.mark.parametrize("into", ["personal", "leaf"])
def test_only_the_blocks_that_were_taught_change(
    into: str, tiny_bundle: Path, tiny_checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    before, out = blocks(tiny_bundle), tmp_path / "out"
    result = teach(request(tiny_bundle, folder, out, tiny_checkpoint, into=into), silent)
    after = blocks(out)
    assert [finding for _, _, finding in Bundle.open(out).verify() if finding] == []
    assert {node for node in after if after[node] != before.get(node)} == set(result.changed) != set()
    assert before.keys() <= after.keys()
    old, new = Bundle.open(tiny_bundle).manifest.files, Bundle.open(out).manifest.files
    programs = [program.path for program in Bundle.open(out).manifest.programs]
    assert all(old[path] == new[path] for path in programs)
    assert [one.name for one in Teaching.read(Bundle.open(out)).documents] == ["a.txt", "b.txt"]
    assert Teaching.read(Bundle.open(out)).nodes == set(result.changed)
    with pytest.raises(EdgeRuntimeError, match="taught all of"):
        teach(request(out, folder, tmp_path / "again", tiny_checkpoint), silent)
    assert not out.with_name("out.teaching").exists()


def test_what_a_leaf_knew_keeps_a_child_without_a_block(tiny_bundle: Path) -> None:
    routing = Routing(Bundle.open(tiny_bundle), 1)
    sections = [Section("a", "Argon. Argon is a noble gas.", ("Its symbol is Ar.",))]
    placement = place_personally(routing, 3, sections, [], 0)
    tree = placement.tree
    assert tree is not None
    for leaf in {node // routing.tree.fanout for node in placement.taught}:
        first = leaf * routing.tree.fanout
        children = {first + i for i in range(routing.tree.fanout) if tree.documents[2][first + i]}
        (old,) = children - placement.taught.keys()
        assert np.array_equal(tree.centroids[2][old], tree.centroids[1][leaf])


def test_without_weights_one_line_says_how_to_get_them(
    tiny_bundle: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(EdgeRuntimeError, match=r"--checkpoint, or export .*--to native --anchor-dtype f32"):
        load_anchor(Bundle.open(tiny_bundle), None)
    with pytest.raises(EdgeRuntimeError, match="run `edge-runtime pretrain`"):
        load_anchor(Bundle.open(tiny_bundle), tmp_path)
    with pytest.raises(EdgeRuntimeError, match="it is there already"):
        teach(request(tiny_bundle, folder, folder, None), silent)


def test_the_native_anchor_is_the_checkpoints(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from edge_export.inputs import load_inputs
    from edge_export.source import Source

    inputs = load_inputs(Source.open(tiny_checkpoint), 4096)
    write_native(inputs.decoder, inputs.anchor, "f32", tmp_path / "native")
    anchor = checkpoint.load(tiny_checkpoint).anchor
    state = anchor_state(load_file(tmp_path / "native"), anchor.config)
    assert state.keys() == anchor.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in anchor.state_dict().items())
