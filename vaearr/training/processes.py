"""Several processes or machines, started by torchrun and joined by torch.distributed.

torchrun and DistributedDataParallel rather than another engine: they come with torch, and the loop
stays one loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from vaearr.computing.device import CPU, pick_device
from vaearr.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Rank of this process among `size`, and its device."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        """Whether this process writes and logs."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over processes, in place, and return the sum."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def totals(self, sums: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
        """Return sums by name over processes, as numbers."""
        if not sums:
            return {}
        pairs = self.total(torch.stack(list(sums.values())))
        return dict(zip(sums, pairs.tolist(), strict=True))

    def first_does(self, work: Callable[..., T], *args: Any) -> T:
        """Call `work(*args)` in the first process; return its result in all. If it fails, the
        others end silently.
        """
        if self.size == 1:
            return work(*args)
        box: list[Any] = [None, 0]
        try:
            if self.is_first:
                box[0] = work(*args)
        except BaseException as error:
            box[1] = getattr(error, "exit_code", 1)
            raise
        finally:
            dist.broadcast_object_list(box, src=0)
        if box[1]:
            raise SystemExit(box[1])
        return cast(T, box[0])

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return the module with gradients averaged over processes."""
        if self.size == 1:
            return module
        device_ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=device_ids)

    def copy_buffers(self, module: nn.Module) -> None:
        """Give all processes the buffers of the first one, such as the running statistics of batch
        norms.
        """
        for buffer in module.buffers() if self.size > 1 else ():
            dist.broadcast(buffer, src=0)


ALONE = Processes()


@contextmanager
def joined_processes(device: str = "auto") -> Iterator[Processes]:
    """Yield rank, number and device of this process among those of torchrun, or alone.

    `torchrun --nproc-per-node 4 -m vaearr -- train …` gives each process the GPU of its local rank,
    or the CPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = pick_device(device)
    if size == 1:
        yield Processes(device=chosen)
        return
    if chosen.index is not None:
        raise UsageError(
            f"{size} processes cannot share {chosen}; leave device at auto or {chosen.type}."
        )
    backend = "gloo"
    if chosen.type == "cuda":
        backend = "nccl"
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    dist.init_process_group(backend)
    log = logging.getLogger("vaearr")
    log.disabled = dist.get_rank() > 0  # only the first process logs
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        log.disabled = False
        dist.destroy_process_group()
