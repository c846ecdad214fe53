"""Where and in which precision a training computes."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from edge_pretrain.recipe import Precision, Sharding

# Tokens. Of shorter sequences attention is two products on a CPU: the backward pass of torch's fused attention does
# not use its bf16 units and took half of a step. Of longer ones the products' T x T values would fill the memory.
SHORT = 512


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

    @contextmanager
    def arithmetic(self, length: int) -> Iterator[None]:
        """What a step of sequences of that many tokens computes in."""
        device, bf16 = self.device.partition(":")[0], self.precision == "bf16"
        products = (
            sdpa_kernel(SDPBackend.MATH) if bf16 and device == "cpu" and length <= SHORT else nullcontext()
        )
        # A weight is used once a step, and under FSDP2 it is gone after that: nothing to keep a cast of.
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16, cache_enabled=False), products:
            yield


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
