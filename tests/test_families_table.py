"""The table of families is complete and true: a family that is missing from a registry fails a test."""

import re
from pathlib import Path

import numpy as np
import pytest

import families as suite
from backends import Backend
from diffstack import jax_impl, parity, torch_impl
from diffstack.families import FAMILIES, Family, family_of
from diffstack.plot import plot_trace

ROOT = Path(__file__).parents[1]
ALL = pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)


def test_the_registries():
    names = list(FAMILIES)
    assert [family.name for family in suite.FAMILIES] == names
    for implementation in (jax_impl, torch_impl):
        found = {
            path.stem for path in Path(implementation.__file__).parent.glob("*.py") if "class " in path.read_text()
        }
        assert set(names) <= set(implementation.__all__)
        assert set(names) <= found
    tested = {case.name.split()[0] for case in parity.cases([parity.Size(2, 2, 1)])}
    assert tested == set(names)


def test_the_readme_has_a_row_for_each_family():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert rows == list(FAMILIES)


@ALL
def test_the_entry_is_true(backend: Backend, family: Family):
    module = backend.module(family.name)
    assert family_of(module) is family
    state = module.empty(2, (3,), batch_shape=(4,))
    assert state._fields == family.fields
    program = module.encode([[0, 2]] * 4 if len(family.ends) == 2 else [0] * 4)
    assert tuple(program.shape[1:]) == ((len(family.action),) if family.action else ())
    # Of an automaton every step is a push, a pop and a replacement at once.
    for verb in ("peek",) if family.automaton else ("push", "pop", "peek"):
        for end in family.ends:
            assert callable(getattr(module, f"{verb}{end}"))
    assert hasattr(module, "resize") == family.grows
    if family.vectors:
        with pytest.raises(ValueError, match="vectors"):
            module.empty(2)
    if not family.only_moves:
        with pytest.raises(TypeError, match="int32"):
            module.empty(2, (3,), dtype=backend.dtype("int32"))


@ALL
def test_a_field_that_does_not_fit_is_named(backend: Backend, family: Family):
    """A dtype of another kind, and another batch than that of the other fields; what has one field has any batch."""
    module = backend.module(family.name)
    state = module.empty(2, (3,), batch_shape=(4,))
    for field, leaf in state._asdict().items():
        wrong = np.zeros(leaf.shape, np.int16 if "float" in str(leaf.dtype) else np.float32)
        if not (family.only_moves and field == family.fields[0]):
            with pytest.raises(TypeError, match=rf"^state\.{field}: expected .*, got "):
                module.contents(state._replace(**{field: backend.array(wrong)}))
        if len(family.fields) > 1:
            with pytest.raises(ValueError, match=r"^state\.\w+: expected shape .*, got shape "):
                module.contents(state._replace(**{field: leaf[:3]}))


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES.values() if not family.automaton], ids=lambda family: family.name
)
def test_a_stack_takes_the_newest(backend: Backend, family: Family):
    module = backend.module(family.name)
    if len(family.ends) == 1:
        state = module.empty(2, (1,))
        for value in (3.0, 2.0):
            state = module.push(state, backend.array(np.asarray([value], np.float32)))
        _, element = module.pop(state)
        assert (backend.numpy(element).item() == 2.0) == family.is_stack


def test_no_family_is_no_family():
    assert family_of(np) is None
    assert family_of(jax_impl.reversal) is None
    with pytest.raises(TypeError, match="family: expected a family's module, got numpy"):
        plot_trace(np, None, np.zeros(1), np.zeros(1))
