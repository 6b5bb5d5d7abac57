"""The devices that share the batches of a run.

Every device has a process of its own, which torchrun starts: each holds all parameters and takes its part of a batch.
A step is written for that part, and its sums are added up over the processes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from diffstack import _checks, _processes


@dataclass(frozen=True)
class Devices:
    """Devices, each of which takes its part of every batch; by default the one that computes anyway."""

    count: int = 1
    place: int = 0

    def split(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The part of this process of tensors (seeds, B, ...)."""
        return tuple(torch.chunk(each, self.count, 1)[self.place] for each in batch)

    def totals(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The sums of tensors of one dtype over all processes, by one message."""
        if self.count == 1:
            return tensors
        flat = torch.cat([each.reshape(-1) for each in tensors])
        distributed.all_reduce(flat)
        parts = flat.split([each.numel() for each in tensors])
        return [part.view_as(each) for part, each in zip(parts, tensors, strict=True)]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What one process has made, in all of them."""
        if self.count == 1:
            return make()
        made = [make() if self.place == 0 else None]
        distributed.broadcast_object_list(made)
        return made[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()


ALONE = Devices()


@contextmanager
def among(count: int | None, batch: int) -> Iterator[Devices]:
    """The devices among which batches are shared in equal parts.

    Args:
        count: how many; None for one, or for one in each process that torchrun has started.
        batch: the number of sequences of a batch.
    """
    processes = _processes.count()
    count = processes if count is None else count
    _checks.check_count("devices", count, 1)
    if count != processes:
        expected = f"{processes}, or torchrun --nproc-per-node {count}, which starts a process for each"
        _checks.bad_value("devices", expected, count)
    if batch % count:
        _checks.bad_value("devices", f"a number that divides the batch of {batch}", count)
    if count == 1:
        yield Devices()
        return
    if not distributed.is_initialized():
        # The processes compute on their CPUs, as this trainer does. The group stays for later runs: after it was
        # destroyed, a new one would find the old one's addresses in torchrun's store.
        distributed.init_process_group("gloo")
    yield Devices(count, distributed.get_rank())
