"""What test_distributed.py runs, alone or under torchrun: some steps of co-training, the state written to a file."""

import sys

import torch
from test_train import ANCHOR, MEMORY, facts
from torch.distributed.tensor import DTensor

from edge_pretrain.compute import Compute
from edge_pretrain.memories import MemoryBank
from edge_pretrain.model import Anchor
from edge_pretrain.ranks import ShardedBank, process_group
from edge_pretrain.train import PhaseConfig, Schedule, Trainer

torch.set_num_threads(1)
with process_group() as ranks:
    generator = torch.Generator().manual_seed(0)
    anchor = Anchor(ANCHOR)
    anchor.initialize(generator)
    bank = MemoryBank.initialized(MEMORY, ANCHOR, generator)
    phase = PhaseConfig(20, 7, 2, Schedule(3e-3, 3e-4), 0.05, Schedule(1e-2, 1e-3), 1e-3)
    bank = bank if ranks.world == 1 else ShardedBank(bank, ranks)
    trainer = Trainer(
        anchor, phase, facts(), 5, bank, Compute(sharding=sys.argv[2], microbatch=int(sys.argv[3]))
    )
    losses = []
    while not trainer.finished:
        losses.append(trainer.train_step())
        if trainer.step == 10:  # what was saved is what is trained on
            trainer.load_state_dict(trainer.state_dict())
    state = trainer.state_dict() | {"losses": torch.tensor(losses), "held": len(bank.levels[2])}
    embedding = trainer.anchor.tok_embeddings.weight
    state["own_rows"] = len(embedding.to_local() if isinstance(embedding, DTensor) else embedding)
    trainer.collect()
    state["collected"] = anchor.state_dict()
    if ranks.rank == 0:
        torch.save(state, sys.argv[1])
