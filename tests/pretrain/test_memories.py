import torch

from edge_pretrain.memories import MemoryBank, MemoryConfig, SparseAdamW, Touched, generic_choice
from edge_pretrain.model import Anchor, AnchorConfig

CONFIG = MemoryConfig(fanout=4, rows=(3, 5), layers=(0, 2))
WIDTH = 16
ANCHOR = AnchorConfig(3, WIDTH, 2, 8, 24, 30, 12)


def make_bank(random_w3: bool = False) -> MemoryBank:
    generator = torch.Generator().manual_seed(0)
    bank = MemoryBank.initialized(CONFIG, ANCHOR, generator)
    if random_w3:
        for block in bank.levels.values():
            block.normal_(generator=generator)
    return bank


def test_levels_have_the_shapes_of_the_tree():
    shapes = {level: tuple(block.shape) for level, block in make_bank().levels.items()}
    assert shapes == {0: (1, 2, 3, 8, WIDTH), 1: (4, 2, 3, 3, WIDTH), 2: (16, 2, 3, 5, WIDTH)}


def test_a_level_without_rows_is_absent():
    bank = MemoryBank.initialized(MemoryConfig(4, (0, 5), (1,)), ANCHOR, torch.Generator().manual_seed(0))
    assert sorted(bank.levels) == [0, 2]
    assert bank.fetch(torch.tensor([3, 9]), torch.tensor([False, True])).rows.shape == (2, 1, 3, 5, WIDTH)


def test_memory_has_no_effect_at_the_start():
    anchor = Anchor(ANCHOR)
    anchor.initialize(torch.Generator().manual_seed(0))
    tokens = torch.randint(30, (3, 12))
    memory = make_bank().fetch(torch.tensor([0, 7, 15]), torch.tensor([False, False, True]))
    assert torch.equal(anchor(tokens), anchor(tokens, memory))
    loud = make_bank(random_w3=True).fetch(torch.tensor([0, 7, 15]), torch.tensor([False, False, True]))
    assert not torch.allclose(anchor(tokens), anchor(tokens, loud))


def test_fetch_reads_the_blocks_of_the_path_or_the_generic_one():
    bank = make_bank(random_w3=True)
    rows = bank.fetch(torch.tensor([0, 7, 7]), torch.tensor([False, False, True])).rows
    assert torch.equal(rows[0], torch.cat([bank.levels[1][0], bank.levels[2][0]], dim=2))
    assert torch.equal(rows[1], torch.cat([bank.levels[1][1], bank.levels[2][7]], dim=2))
    assert torch.equal(rows[2], bank.levels[0][0])


def test_gradients_are_sorted_by_block_as_autograd_does():
    bank = make_bank(random_w3=True)
    leaves, generic = torch.tensor([0, 1, 7, 7, 2]), torch.tensor([False, False, False, False, True])
    for block in bank.levels.values():
        block.requires_grad_()
    rows = bank.fetch(leaves, generic).rows
    weight = torch.randn_like(rows)
    (rows * weight).sum().backward()
    touched = bank.touched(weight, leaves, generic)
    assert [(part.level, part.nodes.tolist()) for part in touched] == [(0, [0]), (1, [0, 1]), (2, [0, 1, 7])]
    for part in touched:
        gradient = bank.levels[part.level].grad
        torch.testing.assert_close(part.gradient, gradient[part.nodes])
        untouched = torch.ones(len(gradient), dtype=torch.bool)
        untouched[part.nodes] = False
        assert not gradient[untouched].any()


def test_sparse_adam_equals_dense_adam_on_the_steps_that_touch_a_block():
    bank = make_bank(random_w3=True)
    optimizer = SparseAdamW(bank, weight_decay=0.1)
    dense = [torch.nn.Parameter(block.clone()) for block in bank.levels[2]]
    references = [torch.optim.AdamW([p], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1) for p in dense]
    untouched = bank.levels[2][15].clone()
    for step in range(6):
        nodes = torch.tensor([1, 4] if step % 2 else [1, 3, 9])
        gradient = torch.randn(len(nodes), 2, 3, 5, WIDTH)
        optimizer.step([Touched(2, nodes, gradient)], 1e-2)
        for node, grad in zip(nodes.tolist(), gradient, strict=True):
            dense[node].grad = grad
            references[node].step()
    for node in (1, 3, 4, 9):
        torch.testing.assert_close(bank.levels[2][node], dense[node].data)
    assert torch.equal(bank.levels[2][15], untouched)
    assert optimizer.steps[2].tolist()[:5] == [0, 6, 0, 3, 3]


def test_the_generic_memory_is_read_one_time_in_seventeen():
    config = MemoryConfig(fanout=16, rows=(8, 32), layers=(0,))
    draws = [generic_choice(config, 64, seed=3, step=step).mean() for step in range(500)]
    assert abs(sum(draws) / len(draws) - 1 / 17) < 0.004
    assert (generic_choice(config, 64, 3, 7) == generic_choice(config, 64, 3, 7)).all()
