import pytest
import torch

from edge_pretrain.model import PAPER_ANCHORS, Anchor, AnchorConfig, MemoryRows, memory_ffn

CONFIG = AnchorConfig(layers=3, d_model=32, heads=2, head_dim=8, ffn_dim=48, vocab_size=50, context_length=24)


def make_anchor(config: AnchorConfig = CONFIG) -> Anchor:
    anchor = Anchor(config)
    anchor.initialize(torch.Generator().manual_seed(0))
    return anchor


def random_rows(batch: int, layers: tuple[int, ...] = (1, 2), rows: int = 5) -> MemoryRows:
    generator = torch.Generator().manual_seed(1)
    return MemoryRows(torch.randn(batch, len(layers), 3, rows, 32, generator=generator), layers)


@pytest.mark.parametrize(
    ("name", "parameters"), [("160M", 163_510_016), ("410M", 411_665_408), ("1.4B", 1_439_893_504)]
)
def test_paper_anchors_have_the_published_size(name, parameters):
    config = PAPER_ANCHORS[name]
    with torch.device("meta"):
        anchor = Anchor(config)
    assert sum(p.numel() for p in anchor.parameters()) == parameters
    assert config.parameters == parameters


def test_config_survives_the_manifest_and_refuses_another_architecture():
    manifest = CONFIG.to_manifest()
    assert AnchorConfig.from_manifest(manifest) == CONFIG
    with pytest.raises(ValueError, match="norm must be 'layernorm', got 'rmsnorm'"):
        AnchorConfig.from_manifest(manifest | {"norm": "rmsnorm"})


def test_documents_of_a_packed_sequence_do_not_see_each_other():
    anchor = make_anchor()
    first, second = torch.randint(50, (1, 9)), torch.randint(50, (1, 12))
    documents = torch.tensor([[0] * 9 + [1] * 12])
    packed = anchor(torch.cat([first, second], dim=1), documents=documents)
    torch.testing.assert_close(packed[:, :9], anchor(first), atol=1e-5, rtol=1e-5)
    # Rotary positions are relative, so a document reads the same wherever it lies.
    torch.testing.assert_close(packed[:, 9:], anchor(second), atol=1e-5, rtol=1e-5)


def test_no_token_sees_the_future():
    anchor = make_anchor()
    tokens = torch.randint(50, (2, 16))
    changed = tokens.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % 50
    torch.testing.assert_close(anchor(tokens)[:, :10], anchor(changed)[:, :10])
    assert not torch.allclose(anchor(tokens)[:, 10:], anchor(changed)[:, 10:])


def test_batched_memory_equals_a_loop_over_sequences():
    anchor = make_anchor()
    tokens = torch.randint(50, (4, 16))
    memory = random_rows(4)
    batched = anchor(tokens, memory)
    for i in range(4):
        alone = anchor(tokens[i : i + 1], MemoryRows(memory.rows[i : i + 1], memory.layers))
        torch.testing.assert_close(batched[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_one_memory_is_shared_across_a_batch():
    anchor = make_anchor()
    tokens = torch.randint(50, (4, 16))
    shared = random_rows(1)
    copies = MemoryRows(shared.rows.expand(4, -1, -1, -1, -1), shared.layers)
    torch.testing.assert_close(anchor(tokens, shared), anchor(tokens, copies), atol=1e-5, rtol=1e-5)


def test_memory_ffn_is_the_formula_of_the_paper():
    x, rows = torch.randn(2, 3, 32), torch.randn(2, 3, 5, 32)
    y = memory_ffn(x, rows)
    for b in range(2):
        for t in range(3):
            gate, up = rows[b, 0] @ x[b, t], rows[b, 1] @ x[b, t]
            expected = rows[b, 2].T @ (gate / (1 + torch.exp(-gate)) * up)
            torch.testing.assert_close(y[b, t], expected, atol=1e-4, rtol=1e-4)


def test_memory_acts_as_more_neurons_of_the_same_ffn():
    anchor = make_anchor()
    tokens = torch.randint(50, (2, 16))
    wider = make_anchor(AnchorConfig(**{**CONFIG.__dict__, "ffn_dim": CONFIG.ffn_dim + 5}))
    memory = random_rows(1, layers=(0, 1, 2))
    state = anchor.state_dict()
    for i in range(3):
        w1, w2, w3 = memory.rows[0, i]
        key = f"layers.{i}.feed_forward.{{}}.weight".format
        state[key("w1")] = torch.cat([state[key("w1")], w1])
        state[key("w2")] = torch.cat([state[key("w2")], w2])
        state[key("w3")] = torch.cat([state[key("w3")], w3.T], dim=1)
    wider.load_state_dict(state)
    torch.testing.assert_close(anchor(tokens, memory), wider(tokens), atol=1e-4, rtol=1e-4)
