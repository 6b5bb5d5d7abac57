"""The layers: one in both frameworks, from one file of weights, against the papers' equations in NumPy."""

import copy
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from backends import JAX, TORCH, Backend, assert_close, witnesses
from diffstack import jax_impl, torch_impl, weights
from diffstack.families import FAMILIES as TABLE
from diffstack.jax_impl.layers import Stack
from families import DISCRETE, FAMILIES, FULL, NEURAL_STACK, POINTER, Family, Size, product, some

pytestmark = pytest.mark.usefixtures("x64")

CELLS = ("lstm", "gru", "rnn", "feedforward")
RNG = np.random.default_rng(0)
SIZE = Size(6, 6, (3,))


def stack_of(family: str, **options: Any) -> Stack:
    return Stack(family, 3, 6 if TABLE[family].ring else None, **options)


def pair(kind: str, *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any], Any]:
    """A layer of JAX, its parameters, and the same one of PyTorch, which draws them without compiling anything."""
    torch.manual_seed(1)
    ours, theirs = (getattr(each.layers, kind)(*arguments, **options) for each in (jax_impl, torch_impl))
    parameters = {name: JAX.array(tensor.numpy()) for name, tensor in theirs.double().state_dict().items()}
    return ours, parameters, theirs


def gradients(ours: Any, parameters: Any, theirs: Any, *inputs: Any, **options: Any) -> Any:
    """Outputs and the gradients of inputs and parameters, of both; lengths are integers."""
    run = ours.scan if hasattr(ours, "scan") else ours.step

    @jax.jit
    def both(parameters: Any, inputs: Any) -> Any:
        def loss(parameters: Any, inputs: Any) -> Any:
            outputs = run(parameters, *inputs, **options)[0]
            return jnp.sum(jnp.sin(outputs)), outputs

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(parameters, inputs)

    (_, outputs), (of_parameters, of_inputs) = both(parameters, tuple(map(JAX.array, inputs)))
    leaves = [torch.from_numpy(each.copy()).requires_grad_() for each in inputs]
    result = theirs(*leaves, **{k: torch.as_tensor(np.asarray(v)) if k == "lengths" else v for k, v in options.items()})
    loss, wanted = torch.sum(torch.sin(result[0])), [*leaves, *theirs.parameters()]
    found = torch.autograd.grad(loss, wanted, materialize_grads=True, allow_unused=True)
    names = [name for name, _ in theirs.named_parameters()]
    expected = [outputs, *of_inputs, *(of_parameters[name] for name in names)]
    return JAX.numpys(expected), TORCH.numpys([result[0], *found])


# Every cell, and stacks with strengths and without; parity compares layers of the others, without lengths.
LENGTHS = FAMILIES if FULL else FAMILIES[:4]
RECURRENT = [(family.name, CELLS[i % 4]) for i, family in enumerate(LENGTHS)]


@pytest.mark.parametrize(("family", "cell"), RECURRENT, ids="-".join)
def test_recurrent_in_both(family: str, cell: str):
    layers = pair("StackRNN", 2, 5, stack_of(family), cell)
    ours, theirs = gradients(*layers, RNG.normal(size=(2, 7, 2)), lengths=np.array([7, 4]))
    for left, right in zip(theirs, ours, strict=True):
        assert_close(left, right, 1e-12)


def test_recurrent_with_several_stacks():
    """Over several chunks: stacks with strengths and of codes; of two ends are those of test_a_trace."""
    families = product(*FAMILIES) or (DISCRETE, NEURAL_STACK)
    layers = pair("StackRNN", 2, 5, tuple(stack_of(family.name) for family in families))
    ours, theirs = gradients(*layers, RNG.normal(size=(32, 2)), method="chunked", final_states=False)
    for left, right in zip(theirs, ours, strict=True):
        assert_close(left, right, 1e-11)


@pytest.mark.parametrize("family", LENGTHS[1:] if not FULL else LENGTHS, ids=str)
def test_attention_in_both(family: Family):
    layers = pair("StackAttention", 4, 3, 2, family.name, 6 if family.ring else None)
    ours, theirs = gradients(*layers, RNG.normal(size=(2, 7, 4)), lengths=np.array([7, 4]))
    for left, right in zip(theirs, ours, strict=True):
        assert_close(left, right, 1e-12)


def test_stack_trans_in_both():
    layers = pair("StackTrans", 4, 3, 2, 5)
    ours, theirs = gradients(*layers, RNG.normal(size=(2, 7, 4)))
    for left, right in zip(theirs, ours, strict=True):
        assert_close(left, right, 1e-12)


# --- the papers' equations ---


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def softmax(x: Any) -> Any:
    return np.exp(x) / np.sum(np.exp(x), -1, keepdims=True)


def cell_of(kind: str, p: Any, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """As PyTorch's documentation writes them."""
    i = p["cell.weight_ih"] @ x + p["cell.bias_ih"]
    if kind == "feedforward":
        return np.tanh(i), c
    j = p["cell.weight_hh"] @ h + p["cell.bias_hh"]
    if kind == "rnn":
        return np.tanh(i + j), c
    if kind == "gru":
        (r, z, n), (hr, hz, hn) = np.split(i, 3), np.split(j, 3)
        r, z = sigmoid(r + hr), sigmoid(z + hz)
        return (1 - z) * np.tanh(n + r * hn) + z * h, c
    i, f, g, o = np.split(i + j, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize(
    ("backend", "name", "cell"), witnesses(["superposition", "neural_stack", "neural_deque"], CELLS), ids=str
)
def test_recurrent_against_the_equations(backend: Backend, name: str, cell: str):
    family = next(family for family in FAMILIES if family.name == name)
    ours, parameters, theirs = pair("StackRNN", 2, 5, stack_of(name), cell)
    p, x = {key: np.asarray(array) for key, array in parameters.items()}, RNG.normal(size=(6, 2))
    h, c, ends = np.zeros(5), np.zeros(5), len(family.ends)
    reads, hs, decided = [np.zeros(3)] * ends, [], []
    state = family.sample(np.random.default_rng(0), SIZE._replace(slots=6 * ends), False).state
    state = type(state)(*(np.zeros_like(leaf) for leaf in state))
    for t in range(6):
        h, c = cell_of(cell, p, np.concatenate([x[t], *reads]), h, c)
        logits = p["heads.0.actions.weight"] @ h + p["heads.0.actions.bias"]
        vector = np.split(np.tanh(p["heads.0.vector.weight"] @ h + p["heads.0.vector.bias"]), ends)
        actions = sigmoid(logits) if family.strengths else softmax(logits)
        decided.append((actions, vector[0] if ends == 1 else tuple(vector)))
        hs.append(h)
        scan = next(verb.oracle for verb in family.verbs if verb.name == "scan")
        leaves = jax.tree.leaves(scan(state, *jax.tree.map(lambda *steps: np.stack(steps), *decided)))
        reads = [leaf[-1] for leaf in leaves[len(state) :]]
    result = backend.computed(runner(backend, (ours, parameters, theirs)), backend.array(x))[0]
    assert_close(backend.numpy(result), np.stack(hs), 1e-12)


def test_attention_against_the_equations(backend: Backend):
    ours, parameters, theirs = pair("StackAttention", 4, 3, 2)
    p, x = {key: np.asarray(array) for key, array in parameters.items()}, RNG.normal(size=(6, 4))
    actions = softmax((x @ p["actions.weight"].T).reshape(6, 2, 3))
    vectors = (x @ p["vectors.weight"].T).reshape(6, 2, 3)
    reads = np.zeros((6, 2, 3))
    for head in range(2):
        rows = np.zeros((8, 3))
        for t, (push, pop, noop) in enumerate(actions[:, head]):
            above, below = np.vstack([vectors[t, head], rows[:-1]]), np.vstack([rows[1:], np.zeros(3)])
            rows = push * above + pop * below + noop * rows
            reads[t, head] = rows[0]
    expected = reads.reshape(6, 6) @ p["output.weight"].T
    result = backend.computed(runner(backend, (ours, parameters, theirs)), backend.array(x))[0]
    assert_close(backend.numpy(result), expected, 1e-12)


def test_stack_trans_against_the_equations(backend: Backend):
    """Two layers of a network with the same parameters."""
    ours, parameters, theirs = pair("StackTrans", 4, 3, 2, 5)
    p, h = {key: np.asarray(array) for key, array in parameters.items()}, RNG.normal(size=4)
    x, stacks, masks = h, np.zeros((2, 5, 3)), np.zeros((2, 5))
    for _ in range(2):
        actions = softmax((p["actions.weight"] @ h).reshape(2, 3))
        vectors, read = (p["down.weight"] @ h).reshape(2, 3), np.zeros((2, 3))
        for head, (push, pop, noop) in enumerate(actions):
            for rows, pushed in ((stacks[head], vectors[head]), (masks[head], 1)):
                above = np.concatenate([np.asarray(pushed)[None], rows[:-1]])
                below = np.concatenate([rows[1:], np.zeros_like(rows[:1])])
                rows[:] = push * above + pop * below + noop * rows
            read[head] = softmax((stacks[head] * masks[head][:, None]) @ p["query.weight"][head]) @ stacks[head]
        h = p["gate"] * h + p["up.weight"] @ read.reshape(6)
    step = (lambda *given: ours.step(parameters, *given)) if backend is JAX else theirs
    hidden, _ = backend.computed(lambda x: step(*step(x)), backend.array(x))
    assert_close(backend.numpy(hidden), h, 1e-12)


# --- how a layer behaves ---


def runner(backend: Backend, layers: Any) -> Any:
    ours, parameters, theirs = layers
    return (lambda *a, **k: ours.scan(parameters, *a, **k)) if backend is JAX else theirs


def stepper(backend: Backend, layers: Any) -> Any:
    ours, parameters, theirs = layers
    return (lambda *a: ours.step(parameters, *a)) if backend is JAX else theirs.step


@pytest.mark.parametrize(
    ("backend", "family", "kind"),
    # Those of the other families in JAX are compared above and by parity.
    [
        each
        for each in witnesses(FAMILIES, ["StackRNN", "StackAttention"])
        if each[0] is TORCH or each[1] in (POINTER, *some(FAMILIES, 1))
    ],
    ids=str,
)
def test_a_carry_cut_anywhere(backend: Backend, family: Family, kind: str):
    """Segments, and one step at a time, give the outputs of one run; with a capacity or without."""
    name = family.name
    capacity = 20 if family.ring or name == "neural_queue" else None
    stack = Stack(name, 3, capacity)
    layers = pair(kind, 2, 5, stack) if kind == "StackRNN" else pair(kind, 2, 3, 2, name, capacity)
    run, step, x = runner(backend, layers), stepper(backend, layers), backend.array(RNG.normal(size=(2, 6, 2)))

    def whole_and_cut(x: Any) -> tuple[Any, ...]:
        first, carry = run(x[:, :3])
        second, carry = run(x[:, 3:5], carry)
        return run(x)[0], first, second, step(x[:, 5], carry)[0][:, None]

    whole, *parts = map(backend.numpy, backend.computed(whole_and_cut, x))
    assert_close(np.concatenate(parts, 1), whole, 1e-12)


def test_a_trace(backend: Backend):
    """What the traces say gives the reads that the next steps have seen."""
    layers = pair("StackRNN", 2, 5, (stack_of("superposition"), stack_of("neural_deque")))
    run, x = runner(backend, layers), backend.array(RNG.normal(size=(2, 7, 2)))

    def again(x: Any) -> Any:
        outputs, _, traces = run(x, trace=True)
        pairs = []
        for stack, (actions, elements, reads) in zip(layers[0].stacks, traces, strict=True):
            module = backend.module(stack.family)
            empty = module.empty(14, (3,), batch_shape=(2,), dtype=backend.dtype("float64"))
            pairs.append((reads, module.scan(empty, actions, elements)[1]))
        return outputs, run(x)[0], pairs

    outputs, plain, pairs = backend.computed(again, x)
    assert_close(backend.numpy(outputs), backend.numpy(plain), 1e-12)
    for reads, after in pairs:
        for seen, each in zip(backend.numpys(reads), backend.numpys(after), strict=True):
            assert_close(seen[:, 1:], each[:, :-1], 1e-12)


def test_parameters_have_the_same_names_and_shapes():
    for kind, arguments in (
        ("StackRNN", (2, 5, (stack_of("neural_deque"), stack_of("discrete")), "gru")),
        ("StackAttention", (4, 3, 2, "neural_deque")),
        ("StackTrans", (4, 3, 2, 5)),
    ):
        ours, _, theirs = pair(kind, *arguments)
        parameters = jax.eval_shape(lambda key, ours=ours: ours.init(key, dtype=jnp.float64), jax.random.key(1))
        assert {array.dtype for array in parameters.values()} == {jnp.dtype(jnp.float64)}
        shapes = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
        assert {name: array.shape for name, array in parameters.items()} == shapes


def test_where_the_biases_start(backend: Backend):
    stacks = (Stack("neural_deque", 2), Stack("superposition", 2), Stack("superposition", 2, pop_bias=-3.0))
    if backend is JAX:
        parameters = jax_impl.layers.StackRNN(2, 5, stacks).init(jax.random.key(0))
    else:
        parameters = torch_impl.layers.StackRNN(2, 5, stacks).state_dict()
    found = [backend.numpy(parameters[f"heads.{i}.actions.bias"]).tolist() for i in range(3)]
    assert found == [[0, -1, 0, -1], [0, 0, 0], [0, -3, 0]]


def test_jax_layers_are_plain_values():
    """Equal arguments make equal layers, so that a jitted function compiles once."""
    one, other = (jax_impl.layers.StackRNN(2, 5, [stack_of("neural_stack")]) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


def test_pytorch_layers_are_modules():
    layer = torch_impl.layers.StackRNN(2, 5, stack_of("superposition"))
    x = torch.randn(2, 7, 2)
    again = copy.deepcopy(layer)
    assert torch.equal(again(x)[0], layer(x)[0])
    assert layer.to(torch.float64)(x.double())[0].dtype == torch.float64
    # The class is picklable whole, as `torch.save` takes modules.
    assert isinstance(pickle.loads(pickle.dumps(layer)), torch_impl.layers.StackRNN)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_pytorch_autocast(family: Family):
    """The layers run under it, and their stacks stay in the dtype of the inputs."""
    x = torch.randn(2, 7, 4)
    for layer in (
        torch_impl.layers.StackRNN(4, 5, stack_of(family.name)),
        torch_impl.layers.StackAttention(4, 3, 2, family.name, 6 if family.ring else None),
    ):
        with torch.autocast("cpu", torch.bfloat16):
            outputs, carry = layer(x, lengths=[7, 3])
        states = carry if isinstance(layer, torch_impl.layers.StackAttention) else carry[1][0]
        assert states[0].dtype == torch.float32
        outputs.float().sum().backward()
        assert all(torch.isfinite(each.grad).all() for each in layer.parameters() if each.grad is not None)


def test_pytorch_compile_and_func():
    torch.compiler.reset()
    layer, x = torch_impl.layers.StackRNN(2, 3, stack_of("superposition")), torch.randn(3, 2, 2, 2)
    plain = layer(x[0])[0]
    assert torch.equal(torch.compile(layer, backend="eager", fullgraph=True)(x[0])[0], plain)
    assert_close(torch.vmap(lambda x: layer(x)[0])(x)[0].detach().numpy(), plain.detach().numpy(), 1e-6)


def test_pytorch_gradcheck():
    layer = torch_impl.layers.StackRNN(2, 3, stack_of("neural_stack")).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x)


# --- weights ---


def test_weights_go_both_ways(tmp_path: Path):
    stack = stack_of("neural_stack")
    ours, parameters, theirs = pair("StackRNN", 2, 5, stack)
    weights.save(tmp_path / "ours", parameters, layer=ours)
    weights.save(tmp_path / "theirs", theirs, layer=theirs)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["ours", "theirs"]
    for layer in (ours, theirs, None):
        loaded = weights.load(tmp_path / "ours", layer=layer)
        for name, array in parameters.items():
            np.testing.assert_array_equal(np.asarray(loaded[name]), np.asarray(array))
    assert isinstance(weights.load(tmp_path / "ours", layer=theirs)["cell.bias_ih"], torch.Tensor)


def test_weights_that_do_not_fit(tmp_path: Path):
    ours, parameters, _ = pair("StackRNN", 2, 5, stack_of("neural_stack"))
    path = tmp_path / "weights"
    weights.save(path, parameters, layer=ours)
    other = jax_impl.layers.StackRNN(2, 5, stack_of("neural_stack"), "gru")
    with pytest.raises(ValueError, match=r"expected parameters of a layer with cell = 'gru', got 'lstm'"):
        weights.load(path, layer=other)
    with pytest.raises(ValueError, match=r"with layer = 'StackTrans', got 'StackRNN'"):
        weights.load(path, layer=jax_impl.layers.StackTrans(4))
    wider = jax_impl.layers.StackRNN(2, 5, Stack("neural_stack", 4))
    with pytest.raises(ValueError, match=r"expected parameters of a layer with stacks\[0\].dim = 4, got 3"):
        weights.load(path, layer=wider)
    # How many slots a stack has, and where its biases started, is no matter.
    weights.load(path, layer=jax_impl.layers.StackRNN(2, 5, Stack("neural_stack", 3, 9, pop_bias=0.0)))
    with pytest.raises(ValueError, match=r"parameters: expected heads.0.actions.bias of shape \(3,\), got"):
        weights.save(path, parameters, layer=jax_impl.layers.StackRNN(2, 5, stack_of("superposition")))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        weights.load(path, layer=ours)
    path.write_bytes(b"not this")
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        weights.load(path)
    weights.save(path, parameters | {"cell.bias_ih": parameters["cell.bias_ih"][1:]})
    with pytest.raises(ValueError, match=r"expected cell.bias_ih of shape \(20,\), got cell.bias_ih of shape \(19,\)"):
        weights.load(path, layer=ours)
    weights.save(path, {name: array for name, array in parameters.items() if name != "cell.bias_ih"})
    with pytest.raises(ValueError, match=r"expected cell.bias_ih of shape \(20,\), got no cell.bias_ih"):
        weights.load(path, layer=ours)
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "nothing", layer=ours)
    with pytest.raises(TypeError, match="layer: expected one of StackRNN"):
        weights.save(path, parameters, layer=np)
    with pytest.raises(TypeError, match=r"parameters\['a'\]: expected an array, got int"):
        weights.save(path, {"a": 1})


def test_weights_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "weights"
    weights.save(path, {"a": np.ones(3)})

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        weights.save(path, {"a": np.zeros(3)})
    assert [each.name for each in tmp_path.iterdir()] == ["weights"]
    assert weights.load(path)["a"].all()


# --- what is refused ---


def test_arguments_that_do_not_fit(backend: Backend):
    layers = backend.module("layers")
    for make, message in (
        (lambda: layers.Stack("heap", 3), "family: expected one of 'pointer'"),
        (lambda: layers.Stack("pointer", 3), "capacity: expected a number for pointer, whose slots are a ring"),
        (lambda: layers.Stack("discrete", 0), "dim: expected an integer of at least 1"),
        (lambda: layers.Stack("discrete", 3, vector="relu"), "vector: expected one of 'tanh', 'sigmoid', None"),
        (lambda: layers.StackRNN(2, 5, Stack("discrete", 3), "cnn"), "cell: expected one of 'lstm', 'gru', 'rnn'"),
        (lambda: layers.StackAttention(2, 3, 0), "heads: expected an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            make()
    with pytest.raises(TypeError, match="stacks: expected a Stack or a tuple of them, got str"):
        layers.StackRNN(2, 5, "discrete")
    run = runner(backend, pair("StackRNN", 2, 5, stack_of("neural_stack")))
    with pytest.raises(ValueError, match=r"inputs: expected shape \(\*batch, time, 2\), got shape \(4, 3\)"):
        run(backend.array(np.zeros((4, 3))))
    with pytest.raises(TypeError, match="inputs: expected a floating dtype"):
        run(backend.array(np.zeros((4, 2), np.int32)))
    with pytest.raises(TypeError, match="carry: expected a pair that an earlier call has returned"):
        run(backend.array(np.zeros((4, 2))), backend.array(np.zeros(5)))
    other = (TORCH if backend is JAX else JAX).module("neural_stack").empty(4, (3,))
    package = backend.module("neural_stack").__name__
    with pytest.raises(TypeError, match=rf"carry\[1\]\[0\]: expected a state of {package}, got diffstack"):
        run(backend.array(np.zeros((4, 2))), ((backend.array(np.zeros(5)),), (other,)))
    attention = runner(backend, pair("StackAttention", 2, 3, 1, "neural_stack"))
    for wrong in (other, backend.array(np.zeros(5))):
        with pytest.raises(TypeError, match=f"carry: expected a state of {package}, got "):
            attention(backend.array(np.zeros((4, 2))), wrong)


@pytest.mark.parametrize("kind", ["StackRNN", "StackAttention", "StackTrans"])
def test_inputs_of_jax_that_are_narrower_than_the_parameters(kind: str):
    """The stacks would be too; the message names what was given."""
    layer = {"StackRNN": (2, 5, stack_of("discrete")), "StackAttention": (2, 3), "StackTrans": (2, 3)}[kind]
    layer = getattr(jax_impl.layers, kind)(*layer)
    run, parameters = layer.step if kind == "StackTrans" else layer.scan, layer.init(jax.random.key(0))
    with pytest.raises(
        TypeError, match=r"^(inputs|hidden): expected dtype float32, that of parameters\['.*'\], got dtype"
    ):
        run(parameters, jnp.zeros((4, 2), jnp.bfloat16))
