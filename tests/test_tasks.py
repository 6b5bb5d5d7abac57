"""The tasks of the papers: their rules stated again by brute force, their exact probabilities, and their scores."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffstack.tasks import TASKS, Batch, Task, transduction
from diffstack.tasks._grammar import Grammar

LANGUAGES = ("marked_reversal", "unmarked_reversal", "padded_reversal", "dyck_2", "hardest_cfl")
SEEDS = st.integers(0, 2**32 - 1)
EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def perfect(task: Task, batch: Batch) -> np.ndarray:
    """Log probabilities of a network that knows every target."""
    with np.errstate(divide="ignore"):
        return np.log(np.eye(task.outputs)[batch.targets])


def texts(task: Task, batch: Batch, row: int = 0) -> tuple[list[str], list[str], list[str]]:
    """The tokens of a sequence, the targets of the loss, and those of accuracies."""
    tokens = [task.symbols[token] for token in batch.tokens[row, : batch.lengths[row]]]
    targets = [
        [task.classes[target] for target in batch.targets[row, mask[row]]] for mask in (batch.mask, batch.scored)
    ]
    return tokens, *targets


# What holds for every task.


@EVERY
def test_a_batch_is_padded_with_zeros_that_never_count(task: Task) -> None:
    batch = task.draw(rng(), 20, (2, 12))
    shape = (20, batch.lengths.max())
    assert [array.shape for array in batch] == [shape, shape, shape, shape, (20,), (20,)]
    assert [array.dtype.name for array in batch] == ["int32", "int32", "bool", "bool", "int32", "float64"]
    padding = np.arange(shape[1]) >= batch.lengths[:, None]
    assert not any(array[padding].any() for array in batch[:4])
    assert not (batch.scored & ~batch.mask).any()
    assert batch.scored.any(1).all()
    assert 0 <= batch.tokens.min() <= batch.tokens.max() < task.inputs
    assert 0 <= batch.targets.min() <= batch.targets.max() < task.outputs
    # Whatever a network says after an end, the scores are the same.
    outputs = rng(1).normal(size=(*shape, task.outputs))
    said = task.score(outputs, batch)
    for anything in (0.0, np.nan, np.inf, 1e300):
        outputs[padding] = anything
        assert task.score(outputs, batch) == said


@EVERY
def test_a_seed_gives_a_batch_again_and_another_gives_another(task: Task) -> None:
    ours, again, other = (task.draw(rng(seed), 20, (2, 12)) for seed in (0, 0, 1))
    for left, right in zip(ours, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert ours.tokens.shape != other.tokens.shape or (ours.tokens != other.tokens).any()


@EVERY
def test_both_ranges_have_lengths(task: Task) -> None:
    for shortest, longest in (task.training, task.testing):
        assert any(task.has(length) for length in range(shortest, longest + 1))


# From a sequence back to its length, where that is not the number of its tokens less those around it.
LENGTHS: dict[str, Callable[[str], int]] = {
    **{name: lambda text: text.count("a") for name in ("anbn", "anb2n", "anbncn", "anbncndn")},
    "anbmcnm": lambda text: text.count("c"),
    "memorization": lambda text: text.index("#") - 1,
    "addition": lambda text: len(re.sub(r"[.+]|=.*", "", text)),
    "stack_manipulation": lambda text: len(re.sub(r"[+_]", "", text)),
    **dict.fromkeys(LANGUAGES, lambda text: len(text) - 1),
}


@EVERY
def test_lengths_are_uniform_and_include_both_ends(task: Task) -> None:
    if task.paper.startswith("Grefenstette"):
        task = {"copy": transduction.copy, "reversal": transduction.reversal}.get(task.name, transduction.bigram_flip)(
            9
        )
    length = LENGTHS.get(task.name, lambda text: len(re.sub(r"[|_]", "", text)))
    batch = task.draw(rng(), 600, (2, 9))
    counts = Counter(length("".join(texts(task, batch, row)[0])) for row in range(600))
    expected = [n for n in range(2, 10) if task.has(n)]
    assert sorted(counts) == expected
    # Five standard deviations.
    mean = 600 / len(expected)
    assert max(abs(count - mean) for count in counts.values()) <= 5 * math.sqrt(mean)


@EVERY
def test_shows_tokens_above_targets(task: Task) -> None:
    batch = task.draw(rng(), 3, (2, 9))
    for row in range(3):
        above, below = task.show(batch, row)
        tokens, targets, _ = texts(task, batch, row)
        assert above.split() == tokens
        assert below.split() == targets
        assert len(above) == len(below)
        assert all(left.isascii() for left in (above, below, task.title))


# Counting, memorization and addition.

WORDS = {
    "anbn": r"a+b+",
    "anb2n": r"a+b+",
    "anbncn": r"a+b+c+",
    "anbncndn": r"a+b+c+d+",
    "anbmcnm": r"a+b+c+",
}
RULES: dict[str, Callable[[Any], bool]] = {
    "anbn": lambda n: n["a"] == n["b"],
    "anb2n": lambda n: 2 * n["a"] == n["b"],
    "anbncn": lambda n: n["a"] == n["b"] == n["c"],
    "anbncndn": lambda n: n["a"] == n["b"] == n["c"] == n["d"],
    "anbmcnm": lambda n: n["a"] + n["b"] == n["c"],
}


@pytest.mark.parametrize("name", WORDS)
@given(seed=SEEDS)
def test_counting(name: str, seed: int) -> None:
    batch = TASKS[name].draw(rng(seed), 1, (2, 30))
    tokens, targets, scored = texts(TASKS[name], batch)
    word = "".join(tokens[1:])
    assert re.fullmatch(WORDS[name], word)
    assert RULES[name](Counter(word))
    assert (tokens[0], targets) == (".", [*word, "."])
    first = "c" if name == "anbmcnm" else "b"
    assert scored == [*word[word.index(first) + 1 :], "."]
    choices = math.log(29) + (math.log(word.count("c") - 1) if name == "anbmcnm" else 0)
    np.testing.assert_allclose(batch.source, choices, rtol=1e-15)


def test_the_two_counts_of_a_sum_are_uniform() -> None:
    batch = TASKS["anbmcnm"].draw(rng(), 500, (6, 6))
    counts = Counter((batch.tokens == 1).sum(1).tolist())
    assert sorted(counts) == [1, 2, 3, 4, 5]
    assert max(abs(count - 100) for count in counts.values()) < 50


@given(seed=SEEDS)
def test_memorization(seed: int) -> None:
    batch = TASKS["memorization"].draw(rng(seed), 1, (2, 30))
    tokens, targets, scored = texts(TASKS["memorization"], batch)
    word, reversed_ = "".join(tokens[1:]).split("#")
    assert set(word) <= {"a", "b"}
    assert reversed_ == word[::-1]
    assert targets == [*tokens[1:], "."]
    assert scored == [*reversed_, "."]
    np.testing.assert_allclose(batch.source, math.log(29) + len(word) * math.log(2))


@given(seed=SEEDS)
def test_addition(seed: int) -> None:
    batch = TASKS["addition"].draw(rng(seed), 1, (2, 70))
    tokens, targets, scored = texts(TASKS["addition"], batch)
    found = re.fullmatch(r"\.(1[01]*)\+(1[01]*)=([01]+)", "".join(tokens))
    assert found
    left, right, result = found.groups()
    assert int(left, 2) + int(right, 2) == int(result[::-1], 2)
    assert result[-1] == "1"
    assert targets == scored == [*result, "."]
    assert batch.source == 0


# Transduction.


@pytest.mark.parametrize("symbols", [1, 3, 128])
@pytest.mark.parametrize("name", ["copy", "reversal", "bigram_flip"])
@given(seed=SEEDS)
def test_transduction(name: str, symbols: int, seed: int) -> None:
    task = getattr(transduction, name)(symbols)
    assert (task.inputs, task.outputs) == (symbols + 2, symbols + 1)
    batch = task.draw(rng(seed), 1, (1, 20))
    tokens, targets, scored = texts(task, batch)
    n = tokens.index("|")
    source, expected = tokens[:n], tokens[:n]
    if name == "reversal":
        expected.reverse()
    if name == "bigram_flip":
        expected[::2], expected[1::2] = expected[1::2], expected[::2]
    assert set(source) <= set(map(str, range(symbols)))
    assert tokens[n:] == ["|", *"_" * n]
    assert targets == scored == [*expected, "."]
    assert batch.mask[0].tolist() == [False] * n + [True] * (n + 1)
    assert batch.source == 0


# The Chomsky hierarchy benchmark.


@pytest.mark.parametrize("name", ["reverse_string", "stack_manipulation", "modular_arithmetic", "solve_equation"])
@given(seed=SEEDS)
def test_chomsky(name: str, seed: int) -> None:
    batch = TASKS[name].draw(rng(seed), 1, (1, 50))
    tokens, targets, scored = texts(TASKS[name], batch)
    n = tokens.index("_")
    assert tokens[n:] == ["_"] * len(targets)
    assert batch.mask[0].tolist() == [False] * n + [True] * len(targets)
    assert batch.source == 0
    expected = CHOMSKY[name](tokens[:n])
    assert scored == expected
    assert targets == expected + ["0"] * ((name == "stack_manipulation") * (n + 1) - len(expected))


def manipulated(question: list[str]) -> list[str]:
    stack: list[str] = []
    for token in question:
        stack = stack[:-1] if token == "-" else [*stack, token.removeprefix("+")]
    assert re.fullmatch(r"[01]+(\+0|\+1|-)*", "".join(question))
    return [*reversed(stack), "."]


def evaluated(question: list[str]) -> list[str]:
    assert set(question) <= set("01234+-*()")
    return [str(eval("".join(question)) % 5)]


def solved(question: list[str]) -> list[str]:
    assert question.count("x") == 1
    assert set(question) <= set("01234+-()x=")
    left, right = "".join(question).split("=")
    (solution,) = [digit for digit in "01234" if eval(left.replace("x", digit)) % 5 == int(right)]
    return [solution]


CHOMSKY: dict[str, Callable[[list[str]], list[str]]] = {
    "reverse_string": lambda question: question[::-1],
    "stack_manipulation": manipulated,
    "modular_arithmetic": evaluated,
    "solve_equation": solved,
}


def test_expressions_have_every_digit_operator_and_depth() -> None:
    task = TASKS["modular_arithmetic"]
    lines = ["".join(texts(task, task.draw(rng(seed), 1, (1, 30)))[0]) for seed in range(200)]
    assert set("".join(lines)) == set("01234+-*()_")
    assert any("))))" in line for line in lines)
    task = TASKS["stack_manipulation"]
    assert any("".join(texts(task, task.draw(rng(seed), 1, (9, 9)))[2]) == "." for seed in range(200))


# The probabilities of strings, from the grammars of the paper once more.


def p(mean: float) -> float:
    return mean / (mean + 1)


def marked(w: str) -> float:
    half = len(w) // 2
    return (1 - p(60)) * (p(60) / 2) ** half if w[half : half + 1] == "#" and is_mirrored(w, half) else 0.0


def unmarked(w: str) -> float:
    half = len(w) // 2
    return (1 - p(60)) * (p(60) / 2) ** half if len(w) == 2 * half and is_mirrored(w, half) else 0.0


def padded(w: str) -> float:
    """Over every half and the symbol of the run between, which may be empty."""
    total = 0.0
    for half, symbol in product(range(len(w) // 2 + 1), "01"):
        run = w[half : len(w) - half]
        if is_mirrored(w, half) and run == symbol * len(run):
            total += (p(60) / 2) ** half * (1 - p(60)) / 2 * p(30) ** len(run) * (1 - p(30))
    return total


def is_mirrored(w: str, half: int) -> bool:
    return set(w[:half]) <= {"0", "1"} and w[:half] == w[len(w) - half :][::-1]


def dyck(w: str) -> float:
    """From left to right, bracket by bracket."""
    if not w:
        return 0.0
    total, depth, start, weight = 0, 0, 0, 1.0
    for place, bracket in enumerate(w):
        depth += 1 if bracket in "([" else -1
        if depth < 0:
            return 0.0
        if depth == 0:
            inner = w[start + 1 : place]
            if w[start] + bracket not in ("()", "[]"):
                return 0.0
            weight *= p(39) / 2 * dyck(inner) if inner else (1 - p(39)) / 2
            total, start = total + 1, place + 1
    return weight * p(1) ** (total - 1) * (1 - p(1)) if depth == 0 else 0.0


# As the paper writes it.
HARDEST: dict[str, list[tuple[str, float]]] = {
    "S'": [("R $ Q S L ;", 1)],
    "L": [("L' , U", 1)],
    "L'": [(", V L'", p(0.5)), ("", 1 - p(0.5))],
    "R": [("U , R'", 1)],
    "R'": [("R' V ,", p(0.5)), ("", 1 - p(0.5))],
    "U": [("W U", p(0.5)), ("", 1 - p(0.5))],
    "V": [("W V", p(1)), ("W", 1 - p(1))],
    "W": [("(", 0.2), (")", 0.2), ("[", 0.2), ("]", 0.2), ("$", 0.2)],
    "Q": [("L ; R", 0.25), ("", 0.75)],
    "S": [("S Q T", p(1.5)), ("T", 1 - p(1.5))],
    "T": [
        ("( Q S Q )", p(3) / 2),
        ("[ Q S Q ]", p(3) / 2),
        ("( Q )", (1 - p(3)) / 2),
        ("[ Q ]", (1 - p(3)) / 2),
    ],
}
SHORTEST = {"S'": 6, "L": 1, "L'": 0, "R": 1, "R'": 0, "U": 0, "V": 1, "W": 1, "Q": 0, "S": 2, "T": 2}


@cache
def hardest(longest: int) -> dict[str, tuple[float, int]]:
    """The probability of every string up to a length, and its number of derivations, one by one."""
    strings: dict[str, tuple[float, int]] = {}

    def derive(done: str, todo: list[str], weight: float) -> None:
        while todo and todo[0] not in HARDEST:
            done, todo = done + todo[0], todo[1:]
        if not todo:
            old, count = strings.get(done, (0.0, 0))
            strings[done] = old + weight, count + 1
            return
        for body, more in HARDEST[todo[0]]:
            form = [*body.split(), *todo[1:]]
            if len(done) + sum(SHORTEST.get(symbol, 1) for symbol in form) <= longest:
                derive(done, form, weight * more)

    derive("", ["S'"], 1.0)
    return strings


ORACLES: dict[str, tuple[int, Callable[[str], float]]] = {
    "marked_reversal": (7, marked),
    "unmarked_reversal": (8, unmarked),
    "padded_reversal": (8, padded),
    "dyck_2": (6, dyck),
    "hardest_cfl": (10, lambda string: hardest(10).get(string, (0.0, 0))[0]),
}


def strings(name: str) -> Iterator[tuple[int, dict[str, float]]]:
    """For each short length the strings that the language has, and their probabilities by the oracle."""
    longest, oracle = ORACLES[name]
    alphabet = TASKS[name].symbols[1:]
    for length in range(longest + 1):
        every = hardest(10) if name == "hardest_cfl" else map("".join, product(alphabet, repeat=length))
        found = {string: oracle(string) for string in every if len(string) == length}
        yield length, {string: weight for string, weight in found.items() if weight}


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_short_string_has_its_exact_probability(name: str) -> None:
    task, (longest, _) = TASKS[name], ORACLES[name]
    expected = dict(strings(name))
    lengths = [length for length in range(longest + 1) if expected[length]]
    assert [length for length in range(longest + 1) if task.has(length)] == lengths
    batch = task.draw(rng(), 400, (0, longest))
    for row, source in enumerate(batch.source):
        string = "".join(texts(task, batch, row)[0][1:])
        of_its_length = expected[len(string)]
        probability = of_its_length[string] / sum(of_its_length.values()) / len(lengths)
        np.testing.assert_allclose(source, -math.log(probability), rtol=1e-12)


@pytest.mark.parametrize("name", LANGUAGES)
def test_short_strings_come_as_often_as_they_should(name: str) -> None:
    task = TASKS[name]
    length, expected = [(length, found) for length, found in strings(name) if 1 < len(found) < 1000][-1]
    count = 2000
    batch = task.draw(rng(), count, (length, length))
    counts = Counter("".join(texts(task, batch, row)[0][1:]) for row in range(count))
    assert set(counts) <= set(expected)
    means = {string: count * weight / sum(expected.values()) for string, weight in expected.items()}
    often = [string for string, mean in means.items() if mean >= 5]
    rest = count - sum(means[string] for string in often), count - sum(counts[string] for string in often)
    pairs = [(means[string], counts[string]) for string in often] + [rest] * (rest[0] > 1)
    statistic, freedom = sum((n - mean) ** 2 / mean for mean, n in pairs), len(pairs) - 1
    assert freedom > 0
    # Its mean and five of its standard deviations.
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_which_grammars_are_ambiguous() -> None:
    # Either of the two members may be the one that is taken.
    assert hardest(10)[",$(),$(),;"][1] == 2
    # 00 around nothing, which there are two ways to make, 0 around 00, or nothing around 0000.
    grammar = Grammar("01", {"S": {"0 S 0": 0.5, "P": 0.25, "Q": 0.25}, "P": {"P 0": 0.5, "": 0.5}, "Q": {"": 1}})
    expected = 0.25 * (0.25 * 0.5 + 0.25) + 0.5 * 0.25 * 0.125 + 0.25 * 0.03125
    np.testing.assert_allclose(np.exp(grammar.log_probabilities([[0, 0, 0, 0]])), expected, rtol=1e-15)


@pytest.mark.parametrize("name", LANGUAGES)
def test_long_strings_are_in_the_language(name: str) -> None:
    task = TASKS[name]
    batch = task.draw(rng(), 10, (40, 80))
    for row in range(10):
        tokens, targets, scored = texts(task, batch, row)
        assert (tokens[0], targets, scored) == (".", [*tokens[1:], "."], targets)
        string = "".join(tokens[1:])
        assert 40 <= len(string) <= 80
        if name == "hardest_cfl":
            assert is_hardest(string)
        else:
            assert ORACLES[name][1](string) > 0


def is_hardest(string: str) -> bool:
    """Whether one member of each list can be taken so that they are $ and balanced brackets, one after the other."""
    *lists, nothing = string.split(";")
    done = {""}  # what has been taken of the lists so far, without the brackets that are closed
    for members in lists:
        joined = {closed(before + member) for before, member in product(done, members.split(","))}
        done = {taken for taken in joined if re.fullmatch(r"\$[(\[]*", taken)}
    return not nothing and "$" in done


def closed(string: str) -> str:
    while (shorter := string.replace("()", "").replace("[]", "")) != string:
        string = shorter
    return string


def test_a_small_grammar_by_hand() -> None:
    """A string that is empty, and one that is made in three ways."""
    grammar = Grammar("ab", {"S": {"S A": 0.25, "A": 0.25, "a": 0.25, "": 0.25}, "A": {"a": 0.5, "b": 0.5}})
    expected = [0.25, 0.25 + 0.25 * 0.5 + 0.25 * 0.25 * 0.5, 0.25 * 0.5 + 0.25 * 0.25 * 0.5]
    found = np.exp(grammar.log_probabilities([[], [0], [1], [2]]))
    np.testing.assert_allclose(found, [*expected, 0], rtol=1e-15)
    np.testing.assert_allclose([grammar.probability(0), grammar.probability(1)], [0.25, sum(expected[1:])])
    assert grammar.draw(rng(), 0) == []


def test_a_uniform_network_pays_what_the_source_leaves() -> None:
    for task in TASKS.values():
        batch = task.draw(rng(), 20, (2, 12))
        scores = task.score(np.zeros((*batch.tokens.shape, task.outputs)), batch)
        expected = math.log(task.outputs) - batch.source.sum() / batch.mask.sum()
        np.testing.assert_allclose(scores, (0, 0, 0, expected), rtol=1e-12)


# Scores.


@EVERY
def test_a_perfect_network(task: Task) -> None:
    batch = task.draw(rng(), 20, (2, 12))
    for outputs in (perfect(task, batch), 1000 * np.eye(task.outputs)[batch.targets] + 5):
        scores = task.score(outputs, batch)
        assert scores[:3] == (1, 1, 1)
        np.testing.assert_allclose(scores.excess, -batch.source.sum() / batch.mask.sum(), rtol=1e-12)
    assert getattr(scores, task.metric) == scores[scores._fields.index(task.metric)]


@EVERY
@given(data=st.data())
def test_one_mistake_costs_what_it_should(task: Task, data: st.DataObject) -> None:
    batch = task.draw(rng(3), 5, (6, 9))
    row, step = data.draw(st.sampled_from(np.argwhere(batch.mask).tolist()))
    outputs = np.eye(task.outputs)[batch.targets]
    outputs[row, step] = np.roll(outputs[row, step], 1)
    scores = task.score(outputs, batch)
    if not batch.scored[row, step]:
        assert scores[:3] == (1, 1, 1)
        return
    steps = batch.scored[row].sum()
    assert scores.accuracy == pytest.approx(1 - 1 / batch.scored.sum())
    assert scores.coarse == pytest.approx(1 - 1 / 5)
    assert scores.fine == pytest.approx((4 + batch.scored[row, :step].sum() / steps) / 5)


def test_excess_is_above_the_cross_entropy_of_the_source() -> None:
    """The source itself, as a network, has none: in marked reversal each next symbol is easily told."""
    task = TASKS["marked_reversal"]
    batch = task.draw(rng(), 200, (7, 7))
    half = 3
    probabilities = np.zeros((*batch.targets.shape, task.outputs))
    probabilities[:, :half, 1:3] = 0.5
    known = np.eye(task.outputs)[batch.targets]
    probabilities[:, half:] = known[:, half:]
    with np.errstate(divide="ignore"):
        assert task.score(np.log(probabilities), batch).excess == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["anbn", "reverse_string", "dyck_2"])
def test_numbers_that_are_none_are_wrong(name: str) -> None:
    batch = TASKS[name].draw(rng(), 4, (4, 8))
    scores = TASKS[name].score(np.full((*batch.tokens.shape, TASKS[name].outputs), np.nan), batch)
    assert scores[:3] == (0, 0, 0)
    assert math.isnan(scores.excess)


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("dyck_2", 0, 1, (2, 4)), TypeError, "rng: expected a numpy.random.Generator, got int"),
        (("dyck_2", rng(), 0, (2, 4)), ValueError, "count: expected an integer of at least 1, got 0"),
        (("dyck_2", rng(), 1.5, (2, 4)), TypeError, "count: expected an integer of at least 1, got 1.5 (float)"),
        (("dyck_2", rng(), 1, 4), TypeError, "lengths: expected a pair, the shortest and the longest length, got 4"),
        (("dyck_2", rng(), 1, (-1, 4)), ValueError, "lengths: expected an integer of at least 0, got -1"),
        (
            ("dyck_2", rng(), 1, (4, 2)),
            ValueError,
            "lengths: expected the shortest and the longest length in this order, got 4, 2",
        ),
        (
            ("dyck_2", rng(), 1, (3, 3)),
            ValueError,
            "lengths: expected a range with a length that dyck_2 has, got 3 to 3",
        ),
        (
            ("dyck_2", rng(), 1, (10**6, 10**6)),
            ValueError,
            "lengths: expected a range with a length that dyck_2 has, got 1000000 to 1000000",
        ),
        (("anbn", rng(), 1, (0, 0)), ValueError, "lengths: expected a range with a length that anbn has, got 0 to 0"),
        (
            ("solve_equation", rng(), 1, (1, 2)),
            ValueError,
            "lengths: expected a range with a length that solve_equation has, got 1 to 2",
        ),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    name, *rest = arguments
    with pytest.raises(error) as raised:
        TASKS[name].draw(*rest)
    assert str(raised.value) == message


def test_outputs_of_another_shape_are_refused() -> None:
    batch = TASKS["anbn"].draw(rng(), 2, (2, 2))
    message = "outputs: expected shape (2, 5, 3), the steps of the batch by the classes of the task, got shape (2, 5)"
    with pytest.raises(ValueError, match=re.escape(message)):
        TASKS["anbn"].score(np.zeros((2, 5)), batch)
    with pytest.raises(ValueError, match="symbols: expected an integer of at least 1, got 0"):
        transduction.copy(0)
