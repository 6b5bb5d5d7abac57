"""Temporary memory: what a call needs at its worst moment, besides its inputs and its outputs."""

import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def of_jax(executable: Any) -> int:
    """What XLA planned for a compiled function."""
    return int(executable.memory_analysis().temp_size_in_bytes)


def of_torch(call: Callable[[], Any], device: str) -> int:
    """The highest sum of live allocations during a call, less what is still alive with its results."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        results = call()
        temporary = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    else:
        with _Allocations() as allocations:
            results = call()
        temporary = allocations.peak - allocations.live
    del results
    return temporary


def available() -> int:
    """Bytes of main memory that can be had now."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class _Allocations(TorchDispatchMode):
    """Counts the storages that operations return while they live; scratch space inside one operation is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        results = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(results):
            if torch.is_tensor(leaf):
                storage = leaf.untyped_storage()
                if storage._cdata not in inputs and storage._cdata not in self._known:
                    self._add(storage)
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def freed(_: Any) -> None:
            del self._known[key]
            self.live -= size

        self._known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)
