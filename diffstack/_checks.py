"""The checks of arguments, which both implementations share so that they say the same words.

Nothing here imports a framework. A check reads the `shape` and the `dtype` of what it is given, never a value, so that
it works on tracers, fake tensors and shape structs as on arrays. A message names the argument, what it should have been
and what it was.
"""

import importlib
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from diffstack.errors import StackOverflowError, StackUnderflowError
from diffstack.families import FLOATING, INTEGER, MOVABLE, Family, family_of


class Layout(NamedTuple):
    """The shapes of a state: its batch axes, its number of slots, and the axes of one element."""

    batch: tuple[int, ...]
    slots: int
    element: tuple[int, ...]


def require(module: str, extra: str) -> None:
    """Raise an `ImportError` that names the extra to install where `module` is missing."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(
            f"{module} is not installed; install it with: pip install 'diffstack[{extra}]'", name=module
        ) from None


def bad_value(name: str, expected: str, actual: object) -> NoReturn:
    """Raise the `ValueError` of an argument."""
    raise ValueError(f"{name}: expected {expected}, got {actual}")


def bad_type(name: str, expected: str, actual: object) -> NoReturn:
    """Raise the `TypeError` of an argument."""
    raise TypeError(f"{name}: expected {expected}, got {actual}")


def dtype_name(dtype: Any) -> str:
    """The name that NumPy, JAX and PyTorch share for a dtype."""
    return str(dtype).removeprefix("torch.")


def check_shape(name: str, actual: Sequence[int], expected: Sequence[int], meaning: str) -> None:
    """An argument must have exactly this shape."""
    if tuple(actual) != tuple(expected):
        bad_value(name, f"shape {tuple(expected)}, {meaning}", f"shape {tuple(actual)}")


# The floating dtypes that can be cast to a wider one without a change of value.
_NARROWER = {"float32": ("float16", "bfloat16"), "float64": ("float16", "bfloat16", "float32")}


def is_narrower(actual: Any, expected: Any) -> bool:
    """Whether every number of one floating dtype is a number of the other, wider one."""
    return dtype_name(actual) in _NARROWER.get(dtype_name(expected), ())


def check_dtype(name: str, actual: Any, expected: Any, owner: str) -> None:
    """An argument must have the dtype of its owner."""
    if dtype_name(actual) != dtype_name(expected):
        bad_type(name, f"dtype {dtype_name(expected)}, that of {owner}", f"dtype {dtype_name(actual)}")


def check_kind(name: str, dtype: Any, kinds: Sequence[str], what: str) -> None:
    """An argument must have one of these dtypes."""
    if dtype_name(dtype) not in kinds:
        bad_type(name, f"{what} ({', '.join(kinds)})", f"dtype {dtype_name(dtype)}")


def check_family_dtype(name: str, dtype: Any, family: Family) -> None:
    """An argument must have a dtype that the family takes."""
    what = "a dtype that both frameworks can move" if family.only_moves else "a floating dtype"
    check_kind(name, dtype, family.dtypes, what)


def check_number(name: str, value: complex, dtype: Any) -> None:
    """A Python number must fit the kind of dtype that it is to get."""
    kinds = {
        bool: MOVABLE,
        int: MOVABLE,
        float: (*FLOATING, "complex64", "complex128"),
        complex: MOVABLE[-2:],
    }
    if dtype_name(dtype) not in kinds[type(value)]:
        bad_type(name, f"a number of dtype {dtype_name(dtype)}", repr(value))
    if type(value) is int and dtype_name(dtype) in INTEGER:
        range_ = np.iinfo(dtype_name(dtype))
        if not range_.min <= value <= range_.max:
            bad_value(name, f"a number of dtype {dtype_name(dtype)}, {range_.min} to {range_.max}", value)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """An option must be one of these strings."""
    if not isinstance(value, str):
        bad_type(name, f"one of {', '.join(map(repr, choices))}", type(value).__name__)
    if value not in choices:
        bad_value(name, f"one of {', '.join(map(repr, choices))}", repr(value))


def check_count(name: str, value: Any, minimum: int) -> int:
    """A size must be an integer, and not too small."""
    # A symbolic integer is asked nothing, since an answer would fix its value. (To PyTorch's compiler it is an `int`.)
    if is_symbolic(value):
        return value
    if isinstance(value, bool) or not (isinstance(value, int) or hasattr(value, "__index__")):
        bad_type(name, f"an integer of at least {minimum}", f"{value!r} ({type(value).__name__})")
    count = value if isinstance(value, int) else operator.index(value)
    if count < minimum:
        bad_value(name, f"an integer of at least {minimum}", count)
    return count


def is_symbolic(size: Any) -> bool:
    """Whether a size stands for many numbers, as in `jax.export` and while PyTorch compiles."""
    return not isinstance(size, int) and type(size).__name__ in ("_DimExpr", "SymInt")


def check_axes(name: str, value: Any) -> tuple[int, ...]:
    """A shape must be a tuple or list of axis lengths."""
    if not isinstance(value, tuple | list):
        bad_type(name, "a tuple of axis lengths", f"{value!r} ({type(value).__name__})")
    return tuple(check_count(f"{name}[{axis}]", length, 0) for axis, length in enumerate(value))


def check_empty(capacity: Any, element_shape: Any, batch_shape: Any) -> Layout:
    """The shapes that a caller asks of an empty state."""
    slots = check_count("capacity", capacity, 1)
    return Layout(check_axes("batch_shape", batch_shape), slots, check_axes("element_shape", element_shape))


def check_buffer(buffer: Any) -> Layout:
    """A buffer that is to be one full stack."""
    if len(buffer.shape) < 1 or buffer.shape[0] < 1:
        bad_value("buffer", "shape (slots, *element) with at least one slot", f"shape {tuple(buffer.shape)}")
    return Layout((), buffer.shape[0], tuple(buffer.shape[1:]))


def check_state(state: Any, kind: type) -> None:
    """A state must be one of this family's."""
    if not isinstance(state, kind):
        # The other framework's state has the same name.
        got = f"one of {type(state).__module__}" if type(state).__name__ == kind.__name__ else type(state).__name__
        bad_type("state", f"a {kind.__name__} of {kind.__module__}", got)
    for field in getattr(kind, "_fields", ()):
        if not hasattr(getattr(state, field), "dtype"):
            bad_type(f"state.{field}", "an array", type(getattr(state, field)).__name__)


def _layout(state: Any, slots: str, weights: str) -> Layout:
    """The layout of a state whose `weights` (*batch, slots) tell its `slots` (*batch, slots, *element) apart."""
    where, rank = tuple(getattr(state, weights).shape), len(getattr(state, weights).shape)
    shape = tuple(getattr(state, slots).shape)
    if rank < 1 or where[-1] < 1:
        bad_value(f"state.{weights}", "shape (*batch, slots) with at least one slot", f"shape {where}")
    if shape[:rank] != where:
        bad_value(
            f"state.{slots}",
            f"shape {(*where, '*element')}, as state.{weights} has {where}",
            f"shape {shape}",
        )
    return Layout(where[:-1], where[-1], shape[rank:])


def check_pointer(state: Any, kind: type) -> Layout:
    """A pointer state: its shapes agree, and its floating dtype is one."""
    check_state(state, kind)
    check_kind("state.buffer", state.buffer.dtype, FLOATING, "a floating dtype")
    check_dtype("state.index", state.index.dtype, state.buffer.dtype, "state.buffer")
    return _layout(state, "buffer", "index")


def check_discrete(state: Any, kind: type) -> Layout:
    """A discrete state: its shapes agree, and its dtypes can be moved."""
    check_state(state, kind)
    batch, shape = tuple(state.depth.shape), tuple(state.buffer.shape)
    check_kind("state.buffer", state.buffer.dtype, MOVABLE, "a dtype that both frameworks can move")
    check_dtype("state.depth", state.depth.dtype, "int32", "a depth")
    check_dtype("state.fault", state.fault.dtype, "int8", "a fault")
    check_shape("state.fault", state.fault.shape, batch, "the batch axes of state.depth")
    if shape[: len(batch)] != batch or len(shape) <= len(batch) or shape[len(batch)] < 1:
        expected = f"shape {(*batch, 'slots', '*element')} with at least one slot, as state.depth has {batch}"
        bad_value("state.buffer", expected, f"shape {shape}")
    return Layout(batch, shape[len(batch)], shape[len(batch) + 1 :])


def check_superposition(state: Any, kind: type) -> Layout:
    """A superposition state: rows of vectors, floating."""
    check_state(state, kind)
    shape = tuple(state.buffer.shape)
    check_kind("state.buffer", state.buffer.dtype, FLOATING, "a floating dtype")
    if len(shape) < 2 or shape[-2] < 1:
        bad_value("state.buffer", "shape (*batch, slots, dim) with at least one slot", f"shape {shape}")
    return Layout(shape[:-2], shape[-2], shape[-1:])


def check_neural(state: Any, kind: type) -> Layout:
    """A neural state: its shapes agree, and values and strengths are floating, each of a dtype of its own."""
    check_state(state, kind)
    check_kind("state.values", state.values.dtype, FLOATING, "a floating dtype")
    check_kind("state.strengths", state.strengths.dtype, FLOATING, "a floating dtype")
    return _layout(state, "values", "strengths")


def check_nondeterministic(state: Any, kind: type) -> Layout:
    """A nondeterministic state: its shapes agree, and values and logarithms are floating."""
    check_state(state, kind)
    values, tops, edges = (tuple(getattr(state, field).shape) for field in ("values", "tops", "edges"))
    check_kind("state.values", state.values.dtype, FLOATING, "a floating dtype")
    check_kind("state.tops", state.tops.dtype, FLOATING, "a floating dtype")
    check_dtype("state.edges", state.edges.dtype, state.tops.dtype, "state.tops")
    if len(tops) < 2 or 0 in tops[-2:]:
        bad_value("state.tops", "shape (*batch, states, symbols) with at least one of each", f"shape {tops}")
    batch = tops[:-2]
    if values[: len(batch)] != batch or len(values) <= len(batch) or values[len(batch)] < 1:
        expected = f"shape {(*batch, 'slots', '*element')} with at least one slot, as state.tops has {tops}"
        bad_value("state.values", expected, f"shape {values}")
    slots = values[len(batch)]
    meaning = "(*batch, slots, states, symbols, slots, states, symbols)"
    check_shape("state.edges", edges, (*batch, slots, *tops[-2:], slots, *tops[-2:]), meaning)
    return Layout(batch, slots, values[len(batch) + 1 :])


def check_bottom(bottom: Any, layout: Layout, dtype: Any) -> None:
    """The vector of the bottom: one for all stacks, or one for each."""
    shape = tuple(bottom.shape)
    if shape not in (layout.element, layout.batch + layout.element):
        bad_value("bottom", f"shape {layout.element} or {layout.batch + layout.element}", f"shape {shape}")
    check_dtype("bottom", bottom.dtype, dtype, "the state")


def check_log_weights(actions: Any, layout: Layout, tops: Any, steps: tuple[int, ...] | None) -> tuple[int, ...]:
    """The log weights of push, pop and replace, for one step or for many; without their number, it is returned."""
    states, symbols = tops.shape[-2:]
    width, rank, shape = states * symbols * (2 * states * symbols + states), len(layout.batch), tuple(actions.shape)
    meaning = f"log weights of {states} states and {symbols} symbols"
    if steps is None and len(shape) != rank + 2:
        bad_value("actions", f"shape {(*layout.batch, 'time', width)}, {meaning}", f"shape {shape}")
    steps = shape[rank : rank + 1] if steps is None else steps
    check_shape("actions", shape, (*layout.batch, *steps, width), meaning)
    check_dtype("actions", actions.dtype, tops.dtype, "state.tops")
    return steps


def check_vector(name: str, shape: tuple[int, ...]) -> None:
    """An element that must be a vector, so that the batch axes can be told from its own."""
    if len(shape) != 1:
        bad_value(name, "(dim,), as the elements of this family are vectors", shape)


def check_pair(name: str, value: Any) -> None:
    """What a deque pushes is a pair, for the top and the bottom."""
    if not isinstance(value, tuple):
        bad_type(name, "a pair (top, bottom)", "one array" if hasattr(value, "dtype") else type(value).__name__)
    if len(value) != 2:
        bad_value(name, "a pair (top, bottom)", f"{len(value)} arrays")


def check_element(name: str, element: Any, layout: Layout, dtype: Any) -> None:
    """One element for every stack of a state."""
    check_shape(name, element.shape, layout.batch + layout.element, "one element for each stack of the state")
    check_dtype(name, element.dtype, dtype, "the state")


def check_elements(name: str, elements: Any, layout: Layout, dtype: Any) -> int:
    """A sequence of elements for every stack of a state; returns its length."""
    shape, rank = tuple(elements.shape), len(layout.batch)
    if (
        len(shape) != rank + 1 + len(layout.element)
        or shape[:rank] + shape[rank + 1 :] != layout.batch + layout.element
    ):
        expected = (*layout.batch, "time", *layout.element)
        bad_value(name, f"shape {expected}, time steps of one element for each stack of the state", f"shape {shape}")
    check_dtype(name, elements.dtype, dtype, "the state")
    return shape[rank]


def check_weights(actions: Any, expected: Sequence[int], dtype: Any) -> None:
    """Action vectors: the weights of push, pop, ... on the last axis."""
    check_shape("actions", actions.shape, expected, "action vectors, which `encode` makes from codes")
    check_dtype("actions", actions.dtype, dtype, "the state")


def check_codes(name: str, codes: Any, expected: Sequence[int] | None = None) -> None:
    """Integer codes PUSH, POP, NOOP."""
    check_kind(name, codes.dtype, INTEGER, "integer codes")
    if expected is not None:
        check_shape(name, codes.shape, expected, "(*batch, [time])")


def check_lengths(lengths: Any, batch: Sequence[int]) -> None:
    """The lengths of ragged sequences, one for each stack."""
    check_kind("lengths", lengths.dtype, INTEGER, "integers")
    check_shape("lengths", lengths.shape, batch, "one length for each stack of the state")


def check_code_list(codes: Any, name: str = "codes", what: str = "integer codes") -> None:
    """Integers may come as an array or as lists."""
    if hasattr(codes, "dtype"):
        return
    try:
        array = np.asarray(codes)
    except ValueError:
        bad_value(name, f"{what} in lists of equal lengths", codes)
    if array.dtype.kind not in "iufcb":
        bad_type(name, what, repr(codes))


def check_learning(program: Any, optimizer: Any, is_optimizer: bool) -> None:
    """What a learning run is made of."""
    if not callable(program):
        bad_type("program", "a function", type(program).__name__)
    if not is_optimizer:
        bad_type("optimizer", "an optimizer of the framework, as the docstring says", type(optimizer).__name__)


def check_output(output: Any, target: Any) -> None:
    """What a program gives must be like the target."""
    if not hasattr(output, "dtype"):
        bad_type("program", "an output like the target", type(output).__name__)
    check_shape("program", output.shape, target.shape, "an output like the target")


def check_stack(stack: Any, implementation: str) -> Family:
    """An algorithm that needs a stack cannot run on a queue, nor on a stack of the other framework."""
    name, family = getattr(stack, "__name__", repr(stack)), family_of(stack)
    if family is None or not family.is_stack:
        bad_type("stack", "a family that is a stack", name)
    if name != f"{implementation}.{family.name}":
        bad_type("stack", f"a family of {implementation}", name)
    return family


def check_sequence(name: str, sequence: Any, family: Family) -> None:
    """A sequence has an axis to run along, and a dtype that the family takes."""
    if len(sequence.shape) < 1:
        bad_value(name, "shape (n, *element)", f"shape {tuple(sequence.shape)}")
    check_family_dtype(name, sequence.dtype, family)


def check_target(target: Any) -> None:
    """What a program is to give must be floating, and something."""
    check_kind("target", target.dtype, FLOATING, "a floating dtype")
    if 0 in target.shape:
        bad_value("target", "at least one entry", f"shape {tuple(target.shape)}")


def raise_fault(first: Sequence[int], code: int, capacity: int) -> NoReturn:
    """Raise the fault `code` that the stack at batch index `first` has met."""
    where = f" at batch index {tuple(first)}" if len(first) else ""
    if code == 1:
        raise StackOverflowError(f"state: a push onto a full stack{where}; its capacity is {capacity}")
    if code == 2:
        raise StackUnderflowError(f"state: a pop from an empty stack{where}")
    raise ValueError(f"state: an action code that is not PUSH, POP or NOOP{where}")


# What `unroll` is given.


def check_states(states: Any, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    """One state or a tuple of them, as a tuple."""
    each = (states,) if hasattr(states, "_fields") else states
    package = kinds[0].__module__.rpartition(".")[0]
    if not isinstance(each, tuple) or not each:
        bad_type("states", f"the state of a family of {package}, or a tuple of such", type(states).__name__)
    for state in each:
        if not isinstance(state, kinds):
            bad_type("states", f"states of families of {package}", f"{type(state).__module__}.{type(state).__name__}")
    return each


def check_same_batch(layouts: Sequence[Layout]) -> Layout:
    """All stacks of a controller have the same batch axes."""
    for layout in layouts:
        if layout.batch != layouts[0].batch:
            bad_value("states", f"batch axes {layouts[0].batch}, those of the first", f"batch axes {layout.batch}")
    return layouts[0]


def check_inputs(shapes: Sequence[Sequence[int]], layout: Layout) -> Any:
    """Inputs of a controller are (*batch, time, ...), with one time for all; returned."""
    if not shapes:
        bad_value("inputs", "at least one array, whose time axis says how many steps there are", "none")
    rank = len(layout.batch)
    for shape in shapes:
        if len(shape) <= rank or tuple(shape[:rank]) != layout.batch:
            bad_value(
                "inputs", f"shape {(*layout.batch, 'time', '...')}, the batch axes first", f"shape {tuple(shape)}"
            )
        if shape[rank] != shapes[0][rank]:
            bad_value("inputs", f"{shapes[0][rank]} steps in every array", f"{shape[rank]} steps")
    return shapes[0][rank]


def check_carry(shapes: Sequence[Sequence[int]], layout: Layout) -> None:
    """With `lengths`, a carry stays as it is for sequences that have ended."""
    rank = len(layout.batch)
    for shape in shapes:
        if tuple(shape[:rank]) != layout.batch:
            expected = f"shape {(*layout.batch, '...')}, the batch axes first, where lengths are given"
            bad_value("carry", expected, f"shape {tuple(shape)}")


def check_decision(given: Any) -> tuple[Any, Any, Any, Any]:
    """What a controller returns."""
    if not isinstance(given, tuple) or len(given) != 4:
        got = f"a tuple of {len(given)}" if isinstance(given, tuple) else type(given).__name__
        bad_type("controller", "a function that returns carry, actions, elements and output", got)
    return given


def paired(actions: Any, elements: Any, stacks: int) -> list[tuple[Any, Any]]:
    """Actions and elements of several stacks, stack by stack."""
    for name, each in (("actions", actions), ("elements", elements)):
        if not isinstance(each, tuple | list) or len(each) != stacks:
            got = f"{len(each)} of them" if isinstance(each, tuple | list) else type(each).__name__
            bad_value(name, f"a tuple of {stacks}, one entry for each stack", got)
    return list(zip(actions, elements, strict=True))


def held(family: Family, state: Any) -> Any:
    """What is zero in an empty state; of an automaton, whether there are edges but the bottom's."""
    if family.automaton:
        edges = state.edges > -math.inf
        return edges.reshape(-1, math.prod(edges.shape[-6:])).sum(-1) > 1
    return getattr(state, family.held) if family.held else state[0]
