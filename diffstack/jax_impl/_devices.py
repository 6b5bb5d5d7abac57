"""The devices that share the batches of a run.

One process holds all of them: parameters are on every device, and each has its part of a batch. A step is
written for the whole batch, and `jit` finds the sums over devices by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffstack import _checks, _processes


@dataclass(frozen=True)
class Devices:
    """Devices, each of which takes its part of every batch; by default the one that computes anyway."""

    mesh: Mesh | None = None

    def replicated(self, tree: Any) -> Any:
        """Arrays that every device has."""
        return tree if self.mesh is None else jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def split(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arrays (seeds, B, ...), of which every device has its part of B."""
        if self.mesh is None:
            return batch
        return jax.device_put(batch, NamedSharding(self.mesh, PartitionSpec(None, "batch")))

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What one process has made, in all of them."""
        return make()

    def wait(self) -> None:
        """Until all processes are here."""


ALONE = Devices()


@contextmanager
def among(count: int | None, batch: int) -> Iterator[Devices]:
    """The devices among which batches are shared in equal parts.

    Args:
        count: how many; None for one, or for one in each process that torchrun has started.
        batch: the number of sequences of a batch.
    """
    if _processes.count() > 1:
        expected = "'torch' in the processes of torchrun, as one process of JAX has all devices"
        _checks.bad_value("backend", expected, "'jax'")
    count = 1 if count is None else count
    _checks.check_count("devices", count, 1)
    there = jax.devices()
    if count > len(there):
        _checks.bad_value("devices", f"at most {len(there)}, which JAX has here", count)
    if batch % count:
        _checks.bad_value("devices", f"a number that divides the batch of {batch}", count)
    # Where axes are explicit, every operation of a network would have to say how its result is sharded.
    mesh = jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,), devices=there[:count])
    yield Devices(mesh if count > 1 else None)
