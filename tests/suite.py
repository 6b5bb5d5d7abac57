"""The suite's modes: strict promotion, four virtual CPU devices, one thread, and kernels that check their shapes."""

import gc
import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import jax
import jaxlib.version
import pytest
import torch
from beartype import beartype
from hypothesis import settings
from jax._src import compiler, source_info_util
from jax._src.interpreters import mlir
from jaxtyping import AbstractArray, jaxtyped

import diffstack.jax_impl
import diffstack.torch_impl
from backends import BACKENDS, Backend, compiled, differentiated
from families import FULL

# Where no bits are promised XLA compiles in a fraction of its time: with next to no optimization.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
if jaxlib.version.__version_info__ < (0, 11):  # later ones do not know it, and stop
    QUICK["xla_cpu_use_fusion_emitters"] = False
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
jax.devices()  # reads them
if not FULL:  # for the programs that tests start
    os.environ["XLA_FLAGS"] += "".join(f" --{name}={str(value).lower()}" for name, value in QUICK.items())

torch.set_num_threads(1)
# JAX notes which lines of Python every operation came from, and XLA carries them along; nobody reads them here.
source_info_util.current = lambda: source_info_util._source_info_context.context
jax.config.update("jax_traceback_in_locations_limit", 0)
# Traces leave many objects, which Python's collector would walk through again and again.
gc.set_threshold(2_000_000, 20, 100)

settings.register_profile(
    "suite", deadline=None, derandomize=bool(os.environ.get("CI")), max_examples=25 if FULL else 5
)
settings.load_profile("suite")

_another_context = mlir.make_ir_context
_one_context = cache(_another_context)


def _context() -> Any:
    """The one context of MLIR, unless JAX is at work in it.

    JAX makes another for every program, which takes as long as the rest of the lowering of a small one.
    """
    return _one_context() if mlir.ir.Context.current is None else _another_context()


mlir.make_ir_context = _context

# Whether XLA compiles as for users. What was compiled in the other way is not used again.
_as_users = jax.make_user_context(FULL)
_compile_options = compiler.get_compile_options
# Linux allows a process 65,530 mappings, of which a large program takes hundreds; where none is left, XLA crashes.
MOST_MAPPINGS = 30_000
MAPPINGS = Path("/proc/self/maps")


def _quick_options(*arguments: Any, env_options_overrides: dict[str, Any] | None = None, **options: Any) -> Any:
    """JAX's options of a program, which leave out XLA's optimizations where no bits are promised."""
    overrides = {**({} if _as_users.value else QUICK), **(env_options_overrides or {})}
    return _compile_options(*arguments, env_options_overrides=overrides, **options)


compiler.get_compile_options = _quick_options


def _modules() -> Iterator[ModuleType]:
    for package in (diffstack.jax_impl, diffstack.torch_impl):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(module.name)


def _is_kernel(value: Any) -> bool:
    """Whether it is a function whose annotations are jaxtyping's."""
    if not isinstance(value, FunctionType):
        return False
    annotations = [value.__annotations__, *(getattr(value.__annotations__.get("return"), "__args__", ()),)]
    kinds = [*annotations[0].values(), *annotations[1]]
    return any(inspect.isclass(kind) and issubclass(kind, AbstractArray) for kind in kinds)


def _kind(value: Any) -> Any:
    """The shapes and dtypes of the arrays in tuples and dicts, and all that is not an array."""
    if isinstance(value, tuple):
        return type(value), *[_kind(each) for each in value]
    if isinstance(value, dict):
        return _kind(tuple(value.items()))
    return (value.shape, value.dtype) if hasattr(value, "shape") else value


def _checked(kernel: FunctionType) -> Callable[..., Any]:
    """The kernel, which checks its annotations whenever it meets new shapes and dtypes."""
    check, met = cache(lambda: jaxtyped(typechecker=beartype)(kernel)), set()

    @wraps(kernel)
    def run(*arguments: Any, **options: Any) -> Any:
        kinds = _kind((*arguments, *options.items()))
        if kinds in met:
            return kernel(*arguments, **options)
        result = check()(*arguments, **options)
        met.add(kinds)
        return result

    return run


KERNELS = [(module, name, value) for module in _modules() for name, value in vars(module).items() if _is_kernel(value)]
CHECKED = {value: _checked(value) for _, _, value in KERNELS}

for _module, _name, _kernel in KERNELS:
    setattr(_module, _name, CHECKED[_kernel])


def pytest_collection_finish() -> None:
    """What has been imported by now stays, and the collector need not walk through it either."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Nor through what the tests have left."""
    gc.freeze()


@pytest.fixture(autouse=True)
def optimized(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests that promise bits are compiled as for users."""
    as_users = FULL or request.node.get_closest_marker("bits") is not None
    with _as_users(as_users):
        yield
    if as_users and MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        for forget in (jax.clear_caches, compiled.cache_clear, differentiated.cache_clear, gc.collect):
            forget()


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels without their checks, which torch.compile cannot compile."""
    for module, name, kernel in KERNELS:
        monkeypatch.setattr(module, name, kernel)


@pytest.fixture(autouse=True)
def strict_promotion() -> Iterator[None]:
    """No dtype and no rank changes unless the library says so."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def standard_promotion(strict_promotion: None) -> Iterator[None]:
    """What a user has; `optax.adam` breaks the strict rules."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit dtypes in JAX."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=BACKENDS, ids=str, scope="module")
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each framework in turn."""
    return request.param
