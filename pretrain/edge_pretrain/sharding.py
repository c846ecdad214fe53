"""The anchor on several processes: DistributedDataParallel, or FSDP2, which divides its weights and moments too.

A state is that of one process either way: tensors are whole in it, and each process takes its own part of them.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from edge_pretrain.model import Anchor
from edge_pretrain.recipe import Sharding


def replica(anchor: Anchor, device: str, sharding: Sharding) -> Anchor:
    """The anchor to train on a device: itself, or under FSDP2 a copy of which each process holds a part."""
    if sharding == "ddp" or not dist.is_initialized():
        return anchor.to(device)
    return copy.deepcopy(anchor).to(device)


def distributed(loss: nn.Module, anchor: Anchor, sharding: Sharding) -> nn.Module:
    """The loss, a module around the anchor, of all processes: the mean of theirs, gradients alike."""
    if not dist.is_initialized():
        return loss
    if sharding == "ddp":
        return DistributedDataParallel(loss)
    for block in anchor.layers:
        fully_shard(block)
    fully_shard(loss)
    return loss


@contextmanager
def local_gradients(loss: nn.Module) -> Iterator[None]:
    """Gradients inside stay with their process; those of the next pass outside take them along to the others."""
    if isinstance(loss, DistributedDataParallel):
        with loss.no_sync():
            yield
    elif isinstance(loss, FSDPModule):
        loss.set_requires_gradient_sync(False)
        yield
        loss.set_requires_gradient_sync(True)
    else:
        yield


def whole(value: Any) -> Any:
    """A state whose tensors are whole; all processes ask for it together."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(entry) for key, entry in value.items()}
    return value


def part(value: Tensor, of: Tensor) -> Tensor:
    """What this process holds of a whole tensor that is divided as `of` is."""
    if not isinstance(of, DTensor):
        return value
    return distribute_tensor(value.to(of.device), of.device_mesh, of.placements)


def load_anchor(anchor: Anchor, state: dict[str, Tensor]) -> None:
    """The inverse of `whole(anchor.state_dict())`."""
    anchor.load_state_dict({name: part(state[name], own) for name, own in anchor.state_dict().items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The inverse of `whole(optimizer.state_dict())`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {
        index: {name: part(value, parameters[index]) if value.ndim else value for name, value in of.items()}
        for index, of in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": parts})


def norm_of(gradients: list[Tensor]) -> float:
    """Of the whole gradient."""
    norm = torch.nn.utils.get_total_norm(gradients)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
