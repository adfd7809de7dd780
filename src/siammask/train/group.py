"""Several processes that train one network, as `torchrun` starts them: each has its own clips, gradients are averaged.

torchrun --standalone --nproc-per-node 2 -m siammask train configs/siammask_light.toml
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from siammask.errors import InputError

PATIENCE = timedelta(hours=2)  # the others wait while the first process decodes a pool or validates


@dataclass(frozen=True, slots=True)
class Group:
    """This process among those of a run; alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine
    restarts: int = 0  # how often torchrun has started the run again after a failure

    @classmethod
    def named(cls) -> Group:
        """What torchrun's environment says; a process alone where it says nothing."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
        return cls(*(int(os.environ.get(name, "01"[name == "WORLD_SIZE"])) for name in names))

    @property
    def leads(self) -> bool:
        """The one that logs, saves and validates."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """A seed for what each process draws for itself; that of the first is the run's own."""
        return seed + (self.rank << 32)

    def portion(self, batch: int) -> int:
        """What of a batch each process draws. Raises InputError where it cannot be shared out evenly."""
        if batch % self.size:
            raise InputError(f"optim.batch is {batch}, but {self.size} processes share it; give a multiple of that.")
        return batch // self.size

    def average(self, network: nn.Module, parts: dict[str, float]) -> dict[str, float]:
        """Make the gradients of `network` the means over all processes; return the same of `parts`.

        One sum over one flat tensor: steps do not go through a module's `forward`, so DistributedDataParallel, which
        hooks into it, does not fit.
        """
        if self.size == 1:
            return parts
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        told = torch.tensor(list(parts.values()), device=gradients[0].device)
        flat = torch.cat([*(g.reshape(-1) for g in gradients), told])
        dist.all_reduce(flat)
        flat /= self.size
        pieces = flat.split([*(g.numel() for g in gradients), len(parts)])
        for gradient, piece in zip(gradients, pieces[:-1], strict=True):
            gradient.copy_(piece.view(gradient.shape))
        return dict(zip(parts, pieces[-1].tolist(), strict=True))

    def share(self, value: Any) -> Any:
        """`value` of the first process, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """On each machine one process goes first, and the others find done what it has done."""
        if self.size > 1 and self.local_rank != 0:
            dist.barrier()
        yield
        if self.size > 1 and self.local_rank == 0:
            dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """The group of this process, connected: by NCCL on "cuda", by Gloo on "cpu"."""
    group = Group.named()
    if group.size == 1:
        yield group
        return
    if device == "cuda":
        torch.cuda.set_device(group.local_rank)
    # after a restart the addresses of the processes that died are still in the store: each attempt has its own names
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = group.leads and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # else torchrun's agent does
    store = dist.PrefixStore(f"attempt {group.restarts}", dist.TCPStore(*place, group.size, serves, PATIENCE))
    kind = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(kind, store=store, rank=group.rank, world_size=group.size, timeout=PATIENCE)
    try:
        yield group
    finally:
        dist.destroy_process_group()
