"""Whether the two implementations are one: the same inputs through both, values and gradients compared.

A case says how to build its inputs and what to do with them; it is written once, against the names that both
implementations share. A run takes a case through both frameworks on one device in one dtype: unbatched, batched and
vmapped. It compares every output, and the gradient of every floating input under random cotangents of the outputs.

The difference of two arrays is max|a - b| / max|a|. In float64 it must be at most 1e-12. In the narrower dtypes it
must be at most 8 units in the last place of the array's largest entry for up to 16 steps; the frameworks round each
step in their own order (XLA fuses multiplications with additions, PyTorch does not), which adds up like a random
walk, so the bound grows with the square root of the number of steps from there. Where a case is lossless (one-hot
indices, actions or strengths), its values must be equal whatever its length, and it runs in float16 and bfloat16
too. A controller whose reads decide what it does next amplifies what rounding makes of it, and so runs in float64
alone. The largest elementwise relative difference is reported as well, but never judged: an entry that is small beside
its array is rounded like its large neighbours.
"""

import os
import platform
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from diffstack import _cases, _checks
from diffstack._cases import MODES, Case, Inputs, Size

__all__ = ["DTYPES", "MODES", "SIZES", "Case", "Difference", "Result", "Size", "cases", "environment", "run"]

DTYPES = ("float16", "bfloat16", "float32", "float64")
SIZES = (Size(13, 7, 3),)
BATCH = 3


class Result(NamedTuple):
    """One comparison.

    Attributes:
        name: that of the case.
        mode: "unbatched", "batched" or "vmapped".
        dtype: that of the run.
        quantity: "values", or "gradient of" an input.
        measured: max|a - b| / max|a|, the worst array's.
        ulps: the same in units in the last place of the largest entry.
        elementwise: the largest relative difference of an entry, for information.
        allowed: what passes, in words.
        passed: whether it did.
    """

    name: str
    mode: str
    dtype: str
    quantity: str
    measured: float
    ulps: float
    elementwise: float
    allowed: str
    passed: bool


def cases(sizes: Sequence[Size] = SIZES) -> list[Case]:
    """Every case at every size.

    Args:
        sizes: (T, N, D) of each.

    Returns:
        The cases of all families and of the layers.

    Example:
        >>> from diffstack import parity
        >>> [case.name for case in parity.cases([parity.Size(5, 2, 1)])][0]
        'pointer scan sequential, soft, T=5 N=2 D=1'
    """
    return [case for size in sizes for case in _cases.of_size(size)]


def run(
    chosen: Sequence[Case] | None = None,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    dtypes: Sequence[str] = DTYPES,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Run cases in both frameworks.

    Args:
        chosen: the cases; all of `cases()` where none are given.
        device: "cpu", or "cuda" where both frameworks see a GPU.
        dtypes: of "float16", "bfloat16", "float32", "float64"; the first two apply to lossless cases only, and
            controllers run in the last one only.
        progress: called with the number of runs done and that of all runs, before the first and after each.

    Returns:
        A `Result` for the values and one for each gradient of every case, mode and dtype.

    Raises:
        ValueError, TypeError: an unknown device or dtype.
        RuntimeError: no GPU.

    Example:
        >>> from diffstack import parity
        >>> results = parity.run(parity.cases([parity.Size(2, 2, 1)])[:1], dtypes=["float64"])
        >>> all(result.passed for result in results)
        True
    """
    _checks.check_choice("device", device, ("cpu", "cuda"))
    for dtype in dtypes:
        _checks.check_choice("dtypes", dtype, DTYPES)
    backends = _Torch(device), _Jax(device)
    runs = [
        (case, mode, dtype)
        for case in (cases() if chosen is None else chosen)
        for dtype in dtypes
        for mode in case.modes
        if dtype in _dtypes(case)
    ]
    results: list[Result] = []
    for done, (case, mode, dtype) in enumerate(runs):
        if progress is not None:
            progress(done, len(runs))
        results += _compare(case, mode, dtype, backends)
    if progress is not None:
        progress(len(runs), len(runs))
    return results


def environment(device: Literal["cpu", "cuda"] = "cpu") -> dict[str, str]:
    """What a report was made with: versions, devices, and PyTorch's precision of float32 products.

    Args:
        device: that of the run.

    Returns:
        Names and values, for people to read.

    Raises:
        RuntimeError: no GPU.

    Example:
        >>> from diffstack import parity
        >>> parity.environment()["float32 products in PyTorch"]
        'highest'
    """
    torch_backend, jax_backend = _Torch(device), _Jax(device)
    return {
        "python": platform.python_version(),
        "jax": jax_backend.version,
        "torch": torch_backend.version,
        "jax device": jax_backend.device_name,
        "torch device": torch_backend.device_name,
        "float32 products in PyTorch": torch_backend.precision,
    }


# The comparison.


def _dtypes(case: Case) -> tuple[str, ...]:
    """Those in which something is promised of a case."""
    if case.lossless:
        return DTYPES
    return ("float64",) if case.feeds_back else ("float32", "float64")


def _compare(case: Case, mode: str, dtype: str, backends: "tuple[_Torch, _Jax]") -> list[Result]:
    rng = np.random.default_rng(0)
    inputs = case.inputs(rng, () if mode == "unbatched" else (BATCH,))
    seed = int(rng.integers(2**32))
    ours, theirs = (
        backend.differentiate(case.function, inputs, dtype, mode == "vmapped", seed) for backend in backends
    )
    results = []
    for quantity in ours:
        pairs = [_difference(a, b, dtype) for a, b in zip(ours[quantity], theirs[quantity], strict=True)]
        worst = Difference(*(max(column, default=0.0) for column in zip(*pairs, strict=True)))
        if case.lossless and quantity == "values":
            passed, allowed = worst.measured == 0, "equal"
        elif dtype == "float64":
            passed, allowed = worst.measured <= 1e-12, "1e-12"
        else:
            ulps = 8 * max(1, case.steps / 16) ** 0.5
            passed, allowed = worst.ulps <= ulps, f"{ulps:.3g} ulps"
        results.append(Result(case.name, mode, dtype, quantity, *worst, allowed, passed))
    return results


_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}


class Difference(NamedTuple):
    """max|a - b| / max|a|; the same in units in the last place of max|a|; max(|a - b| / |a|)."""

    measured: float
    ulps: float
    elementwise: float


def _difference(ours: np.ndarray, theirs: np.ndarray, dtype: str) -> Difference:
    _checks.check_shape("the outputs of the two", theirs.shape, ours.shape, "the same")
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    if same.all():
        return Difference(0.0, 0.0, 0.0)
    with np.errstate(all="ignore"):
        gap = np.where(same, 0, np.abs(ours - theirs))
        gap = np.where(np.isfinite(gap), gap, np.inf)
        top = np.max(np.abs(ours[np.isfinite(ours)]), initial=0)
        last_place = np.ldexp(1.0, int(np.frexp(top)[1]) - 1 - _BITS[dtype])
        elementwise = np.max(gap[~same] / np.abs(ours[~same]))
        return Difference(float(gap.max() / top), float(gap.max() / last_place), float(elementwise))


def _prepared(array: np.ndarray, dtype: str) -> np.ndarray:
    """Both frameworks round to 16 bits from the same float32."""
    return array.astype("float64" if dtype == "float64" else "float32") if array.dtype == np.float64 else array


def _cotangent(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return _prepared(rng.normal(size=shape), dtype)


class _Jax:
    """What a comparison needs of JAX."""

    def __init__(self, device: str) -> None:
        # Two frameworks share the GPU, so JAX may not take all of its memory in advance.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax  # noqa: PLC0415  # a framework is imported when it is asked for

        from diffstack import jax_impl  # noqa: PLC0415

        try:
            self.device = jax.devices(device)[0]
        except RuntimeError:
            raise RuntimeError("device: expected a GPU that JAX sees, got none") from None
        self.jax, self.implementation = jax, jax_impl
        self.version, self.device_name = jax.__version__, self.device.device_kind

    def differentiate(
        self, function: Callable[..., tuple[Any, ...]], inputs: Inputs, dtype: str, vmapped: bool, seed: int
    ) -> dict[str, list[np.ndarray]]:
        """The outputs, and the gradient of each floating input, as float64 arrays by quantity."""
        jax, rng = self.jax, np.random.default_rng(seed)
        with jax.enable_x64(dtype == "float64"), jax.default_device(self.device):
            arrays = {name: jax.numpy.asarray(_prepared(array, dtype)) for name, array in inputs.items()}
            floating = {name: arrays[name].astype(dtype) for name in inputs if inputs[name].dtype == np.float64}
            fixed = {name: array for name, array in arrays.items() if name not in floating}

            def apply(floating: Any, fixed: Any) -> tuple[Any, ...]:
                return function(self.implementation, floating | fixed)

            apply = jax.vmap(apply) if vmapped else apply
            shapes = jax.eval_shape(apply, floating, fixed)
            cotangents = tuple(self._cotangent(rng, output, dtype) for output in shapes)

            @jax.jit
            def both(floating: Any, fixed: Any) -> tuple[Any, Any]:
                outputs, pull_back = jax.vjp(lambda floating: apply(floating, fixed), floating)
                return outputs, pull_back(cotangents)[0]

            outputs, gradients = both(floating, fixed)
            return {"values": [self._numpy(output) for output in outputs]} | {
                f"gradient of {name}": [self._numpy(gradient)] for name, gradient in gradients.items()
            }

    def _cotangent(self, rng: np.random.Generator, output: Any, dtype: str) -> Any:
        if not self.jax.numpy.issubdtype(output.dtype, self.jax.numpy.floating):
            return np.zeros(output.shape, self.jax.dtypes.float0)
        return self.jax.numpy.asarray(_cotangent(rng, output.shape, dtype)).astype(output.dtype)

    def _numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array).astype(np.float64)


class _Torch:
    """What a comparison needs of PyTorch."""

    def __init__(self, device: str) -> None:
        import torch  # noqa: PLC0415

        from diffstack import torch_impl  # noqa: PLC0415

        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("device: expected a GPU that PyTorch sees, got none")
        self.torch, self.implementation, self.device = torch, torch_impl, torch.device(device)
        self.version, self.precision = torch.__version__, torch.get_float32_matmul_precision()
        self.device_name = torch.cuda.get_device_name() if device == "cuda" else "cpu"

    def differentiate(
        self, function: Callable[..., tuple[Any, ...]], inputs: Inputs, dtype: str, vmapped: bool, seed: int
    ) -> dict[str, list[np.ndarray]]:
        """The outputs, and the gradient of each floating input, as float64 arrays by quantity."""
        torch, rng = self.torch, np.random.default_rng(seed)
        arrays = {name: torch.tensor(_prepared(array, dtype), device=self.device) for name, array in inputs.items()}
        floating = {
            name: arrays[name].to(getattr(torch, dtype)).requires_grad_()
            for name in inputs
            if inputs[name].dtype == np.float64
        }

        def apply(arrays: Any) -> tuple[Any, ...]:
            return function(self.implementation, arrays)

        outputs = (torch.func.vmap(apply) if vmapped else apply)(arrays | floating)
        reached = [output for output in outputs if output.requires_grad]
        cotangents = [self._cotangent(rng, output, dtype) for output in outputs if output.is_floating_point()]
        cotangents = [
            cotangent
            for cotangent, output in zip(cotangents, filter(torch.is_floating_point, outputs), strict=True)
            if output.requires_grad
        ]
        gradients = torch.autograd.grad(
            reached, list(floating.values()), cotangents, allow_unused=True, materialize_grads=True
        )
        return {"values": [self._numpy(output) for output in outputs]} | {
            f"gradient of {name}": [self._numpy(gradient)] for name, gradient in zip(floating, gradients, strict=True)
        }

    def _cotangent(self, rng: np.random.Generator, output: Any, dtype: str) -> Any:
        return self.torch.tensor(_cotangent(rng, output.shape, dtype), device=self.device).to(output.dtype)

    def _numpy(self, tensor: Any) -> np.ndarray:
        return tensor.detach().to("cpu", self.torch.float64).numpy()
