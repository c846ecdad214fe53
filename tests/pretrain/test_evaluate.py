import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from edge_pretrain.evaluate import Probe, Routes, question_probe, score, text_probe
from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.model import Anchor, AnchorConfig

WORDS = ["<bos>", "the", "number", "of", "iron", "is", "26", "27", "."]


@pytest.fixture
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<bos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture
def anchor() -> Anchor:
    anchor = Anchor(AnchorConfig(2, 16, 2, 8, 24, len(WORDS), 12))
    anchor.initialize(torch.Generator().manual_seed(0))
    return anchor


def test_a_questions_answer_and_end_are_scored(tokenizer: Tokenizer):
    probe = question_probe(tokenizer, 0, ["the number of iron is", "iron is"], [" 26", " 27"], ".")
    assert probe.tokens.tolist() == [[0, 1, 2, 3, 4, 5, 6, 8], [0, 4, 5, 7, 8, 0, 0, 0]]
    assert probe.scored.tolist() == [[False] * 6 + [True] * 2, [False] * 3 + [True] * 2 + [False] * 3]


def test_a_prompt_whose_tokens_merge_with_the_answer_is_refused():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "ab": 2}, unk_token="a"))
    with pytest.raises(ValueError, match="do not begin with those of its prompt"):
        question_probe(tokenizer, 0, ["a"], ["b"], "")


def test_scoring_agrees_with_a_greedy_generation_loop(anchor: Anchor):
    generator = torch.Generator().manual_seed(1)
    right = 0
    for _ in range(20):
        prompt = torch.randint(1, 9, (1, 4), generator=generator)
        tokens = prompt
        for _ in range(2):
            tokens = torch.cat([tokens, anchor(tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
        for change in (0, 1):
            answer = tokens.clone()
            answer[0, 5] = (answer[0, 5] + change) % 9
            scored = torch.tensor([[False] * 4 + [True] * 2])
            correct, _ = score(anchor, Probe(answer, scored), None, None, "baseline")
            assert bool(correct[0]) == (change == 0)
            right += int(correct[0])
    assert right == 20


def test_each_mode_reads_its_own_memory(anchor: Anchor, tokenizer: Tokenizer):
    bank = MemoryBank.initialized(
        MemoryConfig(4, (3, 5), (0, 1)), anchor.config, torch.Generator().manual_seed(0)
    )
    for block in bank.levels.values():
        block.normal_(generator=torch.Generator().manual_seed(3))
    probe = text_probe(tokenizer, 0, ["the number of iron is 26.", "iron is 27", "of the iron"])
    routes = Routes(torch.tensor([1, 5, 14]), torch.tensor([6, 11, 2]), torch.tensor([0, 3, 9]))
    for mode, leaves, generic in (
        ("fetched", routes.fetched, False),
        ("blocked", routes.blocked, False),
        ("random", routes.random, False),
        ("generic", routes.fetched, True),
    ):
        _, losses = score(anchor, probe, bank, routes, mode)
        for i in range(3):
            ids = probe.tokens[i : i + 1, : int(probe.scored[i].sum()) + 1]
            logits = anchor(ids, bank.fetch(leaves[i : i + 1], torch.tensor([generic])))[0, :-1]
            expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
            assert losses[i] == pytest.approx(expected.item(), abs=1e-5)
    with pytest.raises(ValueError, match="needs a bank"):
        score(anchor, probe, None, None, "fetched")
