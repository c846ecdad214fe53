import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_pretrain.memories import MemoryBank, MemoryConfig
from edge_pretrain.memory_types import TYPES
from edge_pretrain.memory_types.lora import ALPHA
from edge_pretrain.model import PAPER_ANCHORS, Anchor, AnchorConfig, MemoryRows

# Every width differs from every other, so that no two can be mistaken for each other.
CONFIG = AnchorConfig(3, 16, heads=3, head_dim=4, ffn_dim=20, vocab_size=30, context_length=12)
LAYERS = (0, 2)
KINDS = sorted(TYPES)
LORA = {
    "lora_qk": ("attention.wq", "attention.wk"),
    "lora_vo": ("attention.wv", "attention.wo"),
    "lora_ffn": ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
}


def make_anchor(dtype: torch.dtype = torch.float32) -> Anchor:
    anchor = Anchor(CONFIG)
    anchor.initialize(torch.Generator().manual_seed(0))
    return anchor.to(dtype)


def random_memory(kind: str, sequences: int = 2, dtype: torch.dtype = torch.float32) -> MemoryRows:
    parts, rows, width = TYPES[kind].shape(CONFIG, 5)
    generator = torch.Generator().manual_seed(1)
    values = 0.5 * torch.randn(sequences, len(LAYERS), parts, rows, width, generator=generator)
    return MemoryRows(values.to(dtype), LAYERS, TYPES[kind])


def tokens() -> Tensor:
    return torch.randint(30, (2, 9), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_those_of_the_paper(kind: str):
    anchor, r = PAPER_ANCHORS["160M"], 7
    layers, d, heads, dff = anchor.layers, anchor.d_model, anchor.heads * anchor.head_dim, anchor.ffn_dim
    wanted = {
        "ffn": 3 * r * layers * d,
        "lora_qk": 2 * r * layers * (d + heads),
        "lora_vo": 2 * r * layers * (d + heads),
        "lora_ffn": 3 * r * layers * (d + dff),
        "kv": 2 * r * layers * heads,
    }
    config = MemoryConfig(16, (4, 3), tuple(range(layers)), kind)
    assert layers * math.prod(TYPES[kind].shape(anchor, r)) == wanted[kind]
    assert config.fetched_parameters(anchor) == wanted[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_memory_leaves_the_anchors_output_alone_and_can_learn(kind: str):
    anchor = make_anchor()
    bank = MemoryBank.initialized(
        MemoryConfig(4, (2, 3), LAYERS, kind), CONFIG, torch.Generator().manual_seed(0)
    )
    memory = bank.fetch(torch.tensor([0, 7]), torch.tensor([False, True]))
    memory.rows.requires_grad_()
    logits = anchor(tokens(), memory)
    assert torch.equal(logits, anchor(tokens()))
    logits.square().sum().backward()
    assert memory.rows.grad is not None
    moved = memory.rows.grad.abs().amax(dim=(0, 3, 4))  # by layer and part
    assert (moved.amax(dim=1) > 0).all()
    assert not torch.allclose(anchor(tokens(), random_memory(kind)), anchor(tokens()))


@pytest.mark.parametrize("kind", sorted(LORA))
def test_a_lora_memory_is_the_anchor_with_merged_weights(kind: str):
    memory = random_memory(kind, sequences=1)
    merged = make_anchor()
    for slot, layer in enumerate(LAYERS):
        for part, name in enumerate(LORA[kind]):
            weight = merged.layers[layer].get_submodule(name).weight
            a, b = memory.rows[0, slot, part].split([weight.shape[1], weight.shape[0]], dim=1)
            weight.data += ALPHA * b.T @ a
    torch.testing.assert_close(make_anchor()(tokens(), memory), merged(tokens()), atol=1e-5, rtol=1e-4)


def test_ffn_memory_is_the_anchor_with_a_wider_ffn():
    memory = random_memory("ffn", sequences=1)
    wider = make_anchor()
    for slot, layer in enumerate(LAYERS):
        feed_forward, (w1, w2, w3) = wider.layers[layer].feed_forward, memory.rows[0, slot]
        for linear, more, dim in (
            (feed_forward.w1, w1, 0),
            (feed_forward.w2, w2, 0),
            (feed_forward.w3, w3.T, 1),
        ):
            linear.weight = torch.nn.Parameter(torch.cat([linear.weight, more], dim=dim))
    torch.testing.assert_close(make_anchor()(tokens(), memory), wider(tokens()), atol=1e-5, rtol=1e-4)


def test_kv_memory_is_attention_to_further_keys_and_values():
    """Spelt out: each query over all memory keys, no mask and no positions, added before the output matrix."""
    anchor, memory = make_anchor(), random_memory("kv")
    attention, rows = anchor.layers[0].attention, memory.rows[:, 0]
    x = torch.randn(2, 9, CONFIG.d_model, generator=torch.Generator().manual_seed(3))
    angle = torch.zeros(9, CONFIG.head_dim)  # cos 1, sin 0: the plain attention is without positions too
    found = attention(x, angle + 1, angle, None, memory.kind.at(rows))
    plain = attention(x, angle + 1, angle, None)
    added = torch.zeros(2, 9, CONFIG.heads * CONFIG.head_dim)
    queries = attention.q_norm(attention.wq(x))
    for b in range(2):
        for head in range(CONFIG.heads):
            of = slice(head * CONFIG.head_dim, (head + 1) * CONFIG.head_dim)
            scores = queries[b, :, of] @ rows[b, 0, :, of].T / math.sqrt(CONFIG.head_dim)
            added[b, :, of] = F.softmax(scores, dim=-1) @ rows[b, 1, :, of]
    torch.testing.assert_close(found, plain + attention.wo(added), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_side_by_side_are_read_as_one_memory_and_a_shared_one_by_all(kind: str):
    anchor, memory = make_anchor(), random_memory(kind)
    shared = MemoryRows(memory.rows[:1], LAYERS, memory.kind)
    both = MemoryRows(memory.rows[:1].expand(2, -1, -1, -1, -1), LAYERS, memory.kind)
    torch.testing.assert_close(anchor(tokens(), shared), anchor(tokens(), both), atol=1e-5, rtol=1e-4)
    order = torch.tensor([4, 2, 0, 3, 1])
    shuffled = MemoryRows(memory.rows[:, :, :, order], LAYERS, memory.kind)
    torch.testing.assert_close(anchor(tokens(), shuffled), anchor(tokens(), memory), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind: str):
    anchor = make_anchor(torch.float64).requires_grad_(False)
    memory = random_memory(kind, dtype=torch.float64)
    direction = torch.randn(
        memory.rows.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )

    def loss(rows: Tensor) -> Tensor:
        logits = anchor(tokens(), MemoryRows(rows, LAYERS, memory.kind))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten())

    rows = memory.rows.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(rows), rows)
    step = 1e-6
    with torch.no_grad():
        slope = (loss(memory.rows + step * direction) - loss(memory.rows - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-9)
