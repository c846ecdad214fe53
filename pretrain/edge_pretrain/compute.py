"""Where and in which precision a training computes."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from edge_pretrain.recipe import Precision, Sharding


@dataclass(frozen=True)
class Compute:
    """device: of the anchor and its activations; the bank and its moments stay in the host's memory.

    precision: bf16 is autocast: products and attention; weights, gradients' sums and moments stay f32.
    sharding: of the anchor among the processes, see `edge_pretrain.sharding`. microbatch: sequences that a process
    computes at once, 0: its whole share of a batch; the sum of their gradients is the same but for rounding.
    """

    device: str = "cpu"
    precision: Precision = "f32"
    sharding: Sharding = "ddp"
    microbatch: int = 0

    def autocast(self) -> AbstractContextManager[None]:
        # A weight is used once a step, and under FSDP2 it is gone after that: nothing to keep a cast of.
        return torch.autocast(
            self.device.partition(":")[0],
            dtype=torch.bfloat16,
            enabled=self.precision == "bf16",
            cache_enabled=False,
        )


CPU = Compute()


def device_of(name: str, local_rank: int) -> str:
    """The device that a process uses. Raises ValueError for one that this machine does not have.

    name: cpu, or cuda, of which each local process takes one.
    """
    if name == "cpu":
        return name
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(f"--device cuda: process {local_rank} of this machine, which has {count} GPUs")
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}"
