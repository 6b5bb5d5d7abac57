"""The models of docs/use, in the libraries that they are made for.

Each page runs once, as it stands there, and the tests take the model that it has trained, saved and loaded.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from backends import assert_close
from diffstack import torch_impl, weights
from diffstack.jax_impl import superposition, unroll
from diffstack.jax_impl.layers import Stack, StackRNN
from diffstack.torch_impl import neural_stack

PAGES = Path(__file__).parents[1] / "docs" / "use"
LENGTHS = [6, 3, 1, 0]
# Otherwise XLA may leave out a rounding to bfloat16 whose result is cast up again.
ROUNDED = {"xla_allow_excess_precision": False}

# As users run them: `optax.adam` and the libraries break the strict rules.
pytestmark = pytest.mark.usefixtures("standard_promotion")


@cache
def page(name: str) -> dict[str, Any]:
    """What the names of a page stand for after it has run."""
    document = Sybil([PythonCodeBlockParser()]).parse(PAGES / f"{name}.md")
    for example in document.examples():
        example.evaluate()
    return document.namespace


def equal(left: Any, right: Any) -> None:
    """The same bits in two trees of arrays."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def learned(losses: list[Any]) -> None:
    assert len(losses) >= 10
    assert losses[-1] < 0.8 * losses[0]


def pair(leaf: Any) -> Any:
    """Two arrays of one, in front; NumPy makes them, since JAX would compile a program for every shape."""
    return jax.device_put(np.asarray(leaf) * np.asarray([1, 2], leaf.dtype).reshape(2, *(1,) * leaf.ndim))


def alone(tree: Any, i: int) -> Any:
    """One of two."""
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[i]), tree)


def alike(together: Any, looped: list[Any]) -> None:
    """Two runs at once give what one after the other do, and not twice the same."""
    assert_close(np.asarray(together), np.stack(looped), 1e-6)
    assert np.any(np.asarray(looped[0]) != np.asarray(looped[1]))


def stepped(cell: Any, head: Any, readout: Any, xs: Any, hidden: Any) -> Any:
    """The controller of the pages for one sequence, in a plain loop over `step`; the layers may be of any library."""

    def step(carry: Any, x: Any) -> Any:
        hidden, stack = carry
        hidden = cell(jnp.concatenate([x, superposition.peek(stack)]), hidden)
        actions, element = jnp.split(head(hidden), [3])
        stack, _ = superposition.step(stack, jax.nn.softmax(actions), jnp.tanh(element))
        return (hidden, stack), readout(hidden)

    return jax.lax.scan(step, (hidden, superposition.empty(len(xs), (4,))), xs)[1]


def controlled(cell: Any, head: Any, xs: Any) -> Any:
    """The same controller by `unroll`; it gives its hidden states."""

    def controller(hidden: Any, x: Any, read: Any) -> Any:
        hidden = cell(jnp.concatenate([x, read]), hidden)
        actions, element = jnp.split(head(hidden), [3])
        return hidden, jax.nn.softmax(actions), jnp.tanh(element), hidden

    return unroll(controller, jnp.zeros(8), superposition.empty(len(xs), (4,)), xs)[1]


@partial(jax.jit, static_argnums=0, compiler_options=ROUNDED)
def layered(layer: StackRNN, parameters: Any, xs: Any, kernel: Any, bias: Any) -> Any:
    """A layer without any library, and an affine map of its outputs."""
    return layer.scan(parameters, xs, lengths=jnp.asarray(LENGTHS))[0] @ kernel + bias


def with_wide_stack(of: dict[str, Any], run: Callable[[], Any]) -> None:
    """A run whose layers compute in bfloat16, on a stack in float32 that does what a plain one does."""

    @partial(jax.jit, compiler_options=ROUNDED)
    def watched() -> Any:
        seen = []

        def watching(controller: Any, carry: Any, stack: Any, xs: Any, **options: Any) -> Any:
            def watched(carry: Any, x: Any, read: Any) -> Any:
                carry, actions, element, output = controller(carry, x, read)
                return carry, actions, element, (output, actions, element, read)

            result, (outputs, *others) = unroll(watched, carry, stack, xs, **options)
            seen.extend([stack, *others])
            return result, outputs

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(of, "unroll", watching)
            return run(), *seen

    outputs, stack, actions, elements, reads = watched()
    assert outputs.dtype == actions.dtype == elements.dtype == jnp.bfloat16
    assert stack.buffer.dtype == reads.dtype == jnp.float32
    wide = (np.asarray(each, np.float32) for each in (actions, elements))
    _, expected = jax.jit(superposition.scan)(stack, *wide)
    assert_close(np.asarray(reads)[..., 1:, :], np.asarray(expected)[..., :-1, :], 1e-6)


# --- Flax NNX ---


def test_nnx_trains_and_loads():
    of = page("flax-nnx")
    nnx, serialization = of["nnx"], import_module("flax.serialization")
    learned(of["losses"])
    equal(nnx.state(of["loaded"]), nnx.state(of["model"]))
    # And by msgpack.
    saved = serialization.to_bytes(nnx.to_pure_dict(nnx.state(of["model"], nnx.Param)))
    other = of["make"](jax.random.key(1))
    state = nnx.state(other, nnx.Param)
    nnx.replace_by_pure_dict(state, serialization.from_bytes(nnx.to_pure_dict(state), saved))
    nnx.update(other, state)
    equal(of["predict"](other, of["xs"]), of["predict"](of["model"], of["xs"]))


def test_nnx_plain():
    of = page("flax-nnx")
    model, xs = of["model"], of["xs"]

    @jax.jit
    def plain(xs: Any) -> Any:
        return stepped(lambda x, hidden: model.cell(hidden, x)[0], model.head, model.readout, xs, jnp.zeros(8))

    outputs = of["predict"](model, xs, jnp.asarray(LENGTHS))
    for sequence, length, found in zip(*map(np.asarray, (xs, LENGTHS, outputs)), strict=True):
        assert_close(found[:length], np.asarray(plain(sequence))[:length], 1e-6)
        # The controller's outputs are zero after an end.
        equal(found[length:], np.broadcast_to(model.readout.bias.get_value(), found[length:].shape))


def test_nnx_vmap_and_remat():
    of = page("flax-nnx")
    nnx, model, xs = of["nnx"], of["model"], of["xs"]
    many = jax.tree.map(pair, model)
    together = nnx.jit(nnx.vmap(type(model).__call__, in_axes=(0, None, None)))(many, xs, None)
    alike(together, [of["predict"](alone(many, i), xs) for i in range(2)])

    @nnx.jit
    def both(model: Any) -> Any:
        call = type(model).__call__
        return tuple(nnx.grad(lambda m, f=f: jnp.sum(f(m, xs) ** 2))(model) for f in (call, nnx.remat(call)))

    for left, right in zip(*map(jax.tree.leaves, both(model)), strict=True):
        assert np.any(np.asarray(left))
        assert_close(np.asarray(left), np.asarray(right), 1e-5)


def test_nnx_in_bfloat16():
    of = page("flax-nnx")
    make = of["nnx"].jit(lambda: of["StackGRU"](2, 8, 4, rngs=of["nnx"].Rngs(0), dtype=jnp.bfloat16))
    narrow = make()
    with_wide_stack(of, lambda: narrow(of["xs"]))


# --- Equinox ---


def test_equinox_trains_and_loads():
    of = page("equinox")
    learned(of["losses"])
    equal(of["loaded"], of["model"])
    equal(of["predict"](of["loaded"], of["xs"]), of["predict"](of["model"], of["xs"]))


def test_equinox_plain():
    of = page("equinox")
    model, xs = of["model"], of["xs"]

    @jax.jit
    def plain(xs: Any) -> Any:
        return stepped(model.cell, model.head, model.readout, xs, jnp.zeros(8))

    outputs = of["predict"](model, xs, jnp.asarray(LENGTHS))
    for sequence, length, found in zip(*map(np.asarray, (xs, LENGTHS, outputs)), strict=True):
        assert_close(found[:length], np.asarray(plain(sequence))[:length], 1e-6)
        equal(found[length:], np.broadcast_to(model.readout.bias, found[length:].shape))


def test_equinox_vmap():
    of = page("equinox")
    eqx, xs = of["eqx"], of["xs"]
    many = jax.tree.map(pair, of["model"])
    together = eqx.filter_vmap(of["predict"], in_axes=(eqx.if_array(0), None))(many, xs)
    alike(together, [of["predict"](alone(many, i), xs) for i in range(2)])


def test_equinox_in_bfloat16():
    of = page("equinox")
    narrow = jax.tree.map(lambda array: array.astype(jnp.bfloat16), of["model"])
    with_wide_stack(of, lambda: narrow(of["xs"][0]))


# --- Flax Linen ---


def test_linen_trains_and_loads():
    of = page("flax-linen")
    learned(of["losses"])
    equal(of["loaded"], of["variables"])
    equal(of["predict"](of["loaded"], of["xs"]), of["predict"](of["variables"], of["xs"]))


def test_linen_plain():
    """And in bfloat16, with parameters in float32."""
    of = page("flax-linen")
    xs, parameters = of["xs"], of["variables"]["params"]
    for dtype in (jnp.float32, jnp.bfloat16):
        model = of["model"].clone(dtype=dtype)
        cast, inputs = jax.tree.map(lambda array, dtype=dtype: array.astype(dtype), (parameters, xs))
        dense = cast["Dense_0"]
        expected = layered(model.layer, cast["layer"], inputs, dense["kernel"], dense["bias"])
        run = jax.jit(model.apply, compiler_options=ROUNDED)
        found = run(of["variables"], xs, jnp.asarray(LENGTHS))
        assert found.dtype == expected.dtype == dtype
        assert_close(np.asarray(found, np.float32), np.asarray(expected, np.float32), 1e-6)


def test_linen_vmap():
    of = page("flax-linen")
    many = jax.tree.map(pair, of["variables"])
    together = jax.vmap(of["predict"], (0, None))(many, of["xs"])
    alike(together, [of["predict"](alone(many, i), of["xs"]) for i in range(2)])


def test_linen_cell():
    """Submodules whose parameters exist run in a controller."""
    of = page("flax-linen")
    nn = of["nn"]

    class Own(nn.Module):
        @nn.compact
        def __call__(self, xs: Any) -> Any:
            cell, head = nn.GRUCell(8), nn.Dense(7)
            if self.is_initializing():
                head(cell(jnp.zeros(8), jnp.zeros(6))[0])
            layers = (lambda x, hidden: cell(hidden, x)[0], head)
            return controlled(*layers, xs), stepped(*layers, lambda h: h, xs, jnp.zeros(8))

    xs = of["xs"][0]
    variables = jax.jit(Own().init)(jax.random.key(0), xs)
    assert set(variables["params"]) == {"GRUCell_0", "Dense_0"}
    found, expected = jax.jit(Own().apply)(variables, xs)
    assert_close(np.asarray(found), np.asarray(expected), 1e-6)


# --- Haiku ---


def test_haiku_trains_and_loads():
    of = page("haiku")
    learned(of["losses"])
    equal(of["loaded"], of["parameters"])
    equal(of["predict"](of["loaded"], of["xs"]), of["predict"](of["parameters"], of["xs"]))


def test_haiku_saves_for_pytorch(tmp_path: Path):
    of = page("haiku")
    weights.save(tmp_path / "layer", of["parameters"]["stack_net"], layer=of["LAYER"])
    theirs = torch_impl.layers.StackRNN(2, 8, Stack("superposition", 4), "gru")
    theirs.load_state_dict(weights.load(tmp_path / "layer", layer=theirs))
    outputs = theirs(torch.tensor(of["xs"].tolist()))[0].detach().numpy()
    ours, _ = jax.jit(of["LAYER"].scan)(of["parameters"]["stack_net"], of["xs"])
    assert_close(outputs, np.asarray(ours), 1e-5)


def test_haiku_plain():
    """And under a policy, with parameters in float32 and a layer in bfloat16."""
    of = page("haiku")
    hk, jmp = of["hk"], import_module("jmp")
    xs, parameters, module = of["xs"], of["parameters"], of["StackNet"]
    run = jax.jit(
        lambda parameters, xs: of["model"].apply(parameters, xs, jnp.asarray(LENGTHS)), compiler_options=ROUNDED
    )
    for policy, dtype in ((None, jnp.float32), ("params=float32,compute=bfloat16,output=float32", jnp.bfloat16)):
        cast, inputs = jax.tree.map(lambda array, dtype=dtype: array.astype(dtype), (parameters, xs))
        readout = cast["stack_net/~/linear"]
        expected = layered(of["LAYER"], cast["stack_net"], inputs, readout["w"], readout["b"])
        if policy:
            hk.mixed_precision.set_policy(module, jmp.get_policy(policy))
        found = run(parameters, xs)
        hk.mixed_precision.clear_policy(module)
        run.clear_cache()
        assert (found.dtype, expected.dtype) == (jnp.float32, dtype)
        assert_close(np.asarray(found), np.asarray(expected, np.float32), 1e-6)


def test_haiku_vmap():
    of = page("haiku")
    many = jax.tree.map(pair, of["parameters"])
    together = jax.vmap(of["predict"], (0, None))(many, of["xs"])
    alike(together, [of["predict"](alone(many, i), of["xs"]) for i in range(2)])


def test_haiku_cell():
    """A cell whose parameters exist runs in a controller."""
    of = page("haiku")
    hk = of["hk"]

    def run(xs: Any) -> Any:
        cell, head = hk.GRU(8), hk.Linear(7)
        layers = (lambda x, hidden: cell(x, hidden)[1], head)
        if hk.running_init():
            head(cell(jnp.zeros(6), jnp.zeros(8))[1])
        return controlled(*layers, xs), stepped(*layers, lambda h: h, xs, jnp.zeros(8))

    model, xs = hk.without_apply_rng(hk.transform(run)), of["xs"][0]
    parameters = jax.jit(model.init)(jax.random.PRNGKey(0), xs)
    assert set(parameters) == {"gru", "linear"}
    found, expected = jax.jit(model.apply)(parameters, xs)
    assert_close(np.asarray(found), np.asarray(expected), 1e-6)


# --- Lightning ---

# What it asks of PyTorch's trees is deprecated there.
of_lightning = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")


@of_lightning
def test_lightning_trains_and_loads():
    of = page("lightning")
    learned(of["model"].losses)
    same(of["loaded"], of["model"])


def same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """The same parameters, bit for bit."""
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    assert all(left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left)


@of_lightning
@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_lightning_plain(tmp_path: Path, precision: str):
    """The bits of a plain loop in PyTorch, and a checkpoint that keeps them."""
    of, dtype = page("lightning"), torch.float64 if precision.startswith("64") else torch.float32
    plain, model, xs = of["StackNet"](), of["StackNet"](), of["xs"].to(dtype)
    model.load_state_dict(plain.state_dict())
    trainer = of["trainer"](tmp_path, precision)
    trainer.fit(model, of["batches"])
    optimizer = plain.to(dtype).configure_optimizers()
    for _ in range(10):
        optimizer.zero_grad()
        torch.mean((plain(xs) - xs.flip(1)) ** 2).backward()
        optimizer.step()
    same(model, plain)
    with trainer.init_module():
        loaded = of["StackNet"].load_from_checkpoint(tmp_path / "model.ckpt")
    same(loaded, plain)
    # The controller's outputs are zero after an end.
    outputs = loaded(xs, lengths=LENGTHS)
    for sequence, length, found in zip(xs, LENGTHS, outputs, strict=True):
        torch.testing.assert_close(found[:length], plain(sequence)[:length])
        assert torch.equal(found[length:], plain.readout.bias.expand(6 - length, 2))


@of_lightning
def test_lightning_in_bfloat16(tmp_path: Path):
    """Under autocast the stack has the dtype of the inputs, and the bits of one that runs outside."""
    of, seen = page("lightning"), []

    class Watched(of["StackNet"]):
        def forward(self, xs: Any, lengths: Any = None) -> Any:
            outputs, carry, (trace,) = self.layer(xs, trace=True)
            seen.append((outputs, carry[1][0], trace))
            return self.readout(outputs)

    model = Watched()
    of["trainer"](tmp_path, "bf16-mixed").fit(model, of["batches"])
    learned(model.losses)
    outputs, state, (actions, elements, reads) = seen[-1]
    assert actions.dtype == torch.bfloat16
    assert outputs.dtype == state.values.dtype == state.strengths.dtype == reads.dtype == torch.float32
    assert all(each.dtype == torch.float32 for each in model.parameters())
    expected, after = neural_stack.scan(
        neural_stack.empty(6, (4,), batch_shape=(4,)), actions, elements, method="sequential"
    )
    assert torch.equal(state.values, expected.values)
    assert torch.equal(state.strengths, expected.strengths)
    assert torch.equal(reads[:, 1:], after[:, :-1])
