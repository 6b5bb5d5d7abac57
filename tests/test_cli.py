"""The command `diffstack`: what it prints, what it writes, and what it refuses."""

import errno
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pytest

from diffstack import __version__, _backends, _files, cli, parity
from diffstack.plot import plot_learning
from diffstack.tasks import TASKS
from families import FULL

ROOT = Path(__file__).parent.parent
TARGET = np.repeat([[4.0], [3.0], [2.0], [1.0]], 4, axis=1)
# What the notebook printed, before every tenth update.
NOTEBOOK = [3.5, 1.278137, 0.343994, 0.054887, 0.016218, 0.008572, 0.006566, 0.001941, 0.000025, 0.000215]

# `optax.adam` breaks the strict rules of promotion.
pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a target as .csv and as .npy."""
    monkeypatch.chdir(tmp_path)
    np.savetxt("target.csv", TARGET, delimiter=",", fmt="%g")
    np.save("target.npy", TARGET.astype(np.float32))
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def png_size(path: Path) -> tuple[int, ...]:
    """Width and height of a whole PNG."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", data[16:24])


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds this diffstack."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False, timeout=120
    )


def command(before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a fresh interpreter, after some lines of Python."""
    return python(
        "-c",
        f"import sys\n{before}\nfrom diffstack.__main__ import main\n"
        f"sys.argv[1:] = {list(arguments)!r}\nsys.exit(main())",
    )


# What it does.


@pytest.mark.parametrize("ending", ["csv", "npy"])
@pytest.mark.parametrize("name", _backends.NAMES)
def test_learns_the_input_of_a_users_target(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, ending: str
) -> None:
    before = files(folder)
    assert cli.run(["learn", f"target.{ending}", "--backend", name]) == 0
    result = folder / f"target.learned.{ending}"
    assert set(files(folder)) == {*before, result.name}
    learned = np.load(result) if ending == "npy" else np.loadtxt(result, delimiter=",")
    assert learned.dtype == (np.float32 if ending == "npy" else np.float64)
    np.testing.assert_array_equal(np.round(learned), TARGET[::-1])
    output, complaint = capsys.readouterr()
    printed = re.search(r"after 100 updates in (\w+): (\S+)", output)
    assert printed
    assert printed[1] == {"jax": "JAX", "torch": "PyTorch"}[name]
    np.testing.assert_allclose(float(printed[2]), np.mean((learned[::-1] - TARGET) ** 2), rtol=1e-4)
    assert result.name in output
    assert not complaint


def test_both_frameworks_learn_the_same_from_a_csv(folder: Path) -> None:
    for name in _backends.NAMES:
        assert cli.run(["learn", "target.csv", "--backend", name, "--out", f"{name}.csv"]) == 0
    ours, theirs = (np.loadtxt(f"{name}.csv", delimiter=",") for name in _backends.NAMES)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(ours).max())


# A shape, a dtype, and that of what is learned.
TARGETS = [
    ((3,), "float16", "float32"),
    ((3, 2, 2), "float64", "float64"),
    ((3, 2), ">f4", "float32"),
    ((1, 3), "int8", "float64"),
    ((2, 1, 1, 3), "bool", "float64"),
]


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "computed"),
    # The file is read before the framework is chosen.
    [
        (name, *target)
        for name, targets in (("torch", TARGETS[2:]), ("jax", TARGETS[:2]))
        for target in (TARGETS if FULL else targets)
    ],
    ids=str,
)
def test_learns_elements_of_any_rank_in_their_dtype(
    folder: Path, name: str, shape: tuple[int, ...], dtype: str, computed: str
) -> None:
    target = np.asfortranarray(np.arange(1, 1 + np.prod(shape)).reshape(shape) % 4).astype(dtype)
    np.save("any.npy", target)
    assert cli.run(["learn", "any.npy", "--backend", name, "--steps", "150", "--out", "x.npy"]) == 0
    learned = np.load("x.npy")
    np.testing.assert_array_equal(np.round(learned), target[::-1].astype(computed))
    assert learned.dtype == np.dtype(computed)


@pytest.mark.parametrize(
    "text",
    ["\ufeff4,4\r\n3,3\r\n", '"4"," 4 "\n\n\n"3",3e0\n   \n', "4,4\r3,3"],
    ids=["BOM and Windows", "quotes and blank lines", "old Macintosh"],
)
def test_reads_csv_as_programs_write_it(folder: Path, text: str) -> None:
    Path("odd.csv").write_bytes(text.encode())
    np.testing.assert_array_equal(_files.read_target(Path("odd.csv")), [[4.0, 4.0], [3.0, 3.0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_csv_keeps_every_bit(folder: Path, dtype: type) -> None:
    array = np.random.default_rng(0).normal(size=(5, 3)).astype(dtype)
    with _files.replacing("--out", Path("bits.csv")) as file:
        _files.write_array(file, array, ".csv")
    np.testing.assert_array_equal(_files.read_target(Path("bits.csv")).astype(dtype), array)


def test_no_steps_leave_the_start(folder: Path) -> None:
    assert cli.run(["learn", "target.npy", "--steps", "0", "--backend", "torch", "--plot", "x.png"]) == 0
    np.testing.assert_array_equal(np.load("target.learned.npy"), np.ones((4, 4)))
    assert png_size(Path("x.png")) == (1200, 500)


def test_a_smaller_learning_rate_learns_less(folder: Path) -> None:
    for rate in ("0.1", "0.001"):
        assert cli.run(["learn", "target.npy", "--learning-rate", rate, "--out", f"{rate}.npy"]) == 0
    fast, slow = (np.abs(np.load(f"{rate}.npy") - TARGET[::-1]).max() for rate in ("0.1", "0.001"))
    assert fast < 0.1 < slow


def test_a_run_compiles_at_most_twice_in_jax(folder: Path) -> None:
    kernel = _backends.load("jax").implementation.inverse._advance
    np.save("new.npy", np.ones((5, 7), np.float32))
    before = kernel._cache_size()
    assert cli.run(["learn", "new.npy", "--steps", "237"]) == 0
    assert kernel._cache_size() <= before + 2


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_draws_the_run(folder: Path, ending: str, start: bytes) -> None:
    picture = f"run.{ending}"
    assert cli.run(["learn", "target.npy", "--backend", "torch", "--steps", "10", "--plot", picture]) == 0
    assert Path(picture).read_bytes().startswith(start)
    assert set(files(folder)) == {"target.csv", "target.npy", "target.learned.npy", picture}


def test_an_older_result_is_replaced_also_through_a_link(folder: Path) -> None:
    Path("old").write_bytes(b"old")
    Path("link.npy").symlink_to("old")
    assert cli.run(["learn", "target.npy", "--backend", "torch", "--out", "link.npy"]) == 0
    assert Path("link.npy").is_symlink()
    np.testing.assert_array_equal(np.round(np.load("old")), TARGET[::-1])


@pytest.mark.bits
def test_demo_walks_through_both_frameworks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(folder)
    assert cli.run(["demo", "--out", "new/pictures"]) == 0
    assert set(files(folder)) == {*before, "new/pictures/learning.png"}
    assert png_size(Path("new/pictures/learning.png")) == (1200, 500)
    output, complaint = capsys.readouterr()
    assert not complaint
    assert max(map(len, output.splitlines())) <= 80
    for title in ("Soft assignment", "Soft lookup", "Push", "Pop", "Peek", "Reversal", "Learning", "The learned input"):
        assert re.search(rf"^{title}", output, re.MULTILINE), title
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    # The learned input may differ in its last digits, which are not shown; all else is equal.
    for row in rows:
        assert row[1] == row[2], row
        assert row[3] in ("", "0") or float(row[3]) <= 1e-6, row
    losses = [row for row in rows if row[0].isdecimal()]
    assert [int(row[0]) for row in losses] == list(range(0, 100, 10))
    np.testing.assert_allclose([float(row[1]) for row in losses], NOTEBOOK, rtol=0, atol=2e-6)
    rounded = [row[0] for row in rows].index("rounded")
    assert [row[1] for row in rows[rounded : rounded + 4]] == [" ".join([f"{n}."] * 4) for n in (1, 2, 3, 4)]


def test_parity_reports_what_it_compared(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [case._replace(modes=("batched",)) for case in parity.cases([parity.Size(2, 2, 1)])[:2]]
    monkeypatch.setattr(parity, "cases", lambda: few)
    assert cli.run(["parity", "--dtype", "float32", "--dtype", "float64", "--json", "report"]) == 0
    report = json.loads(Path("report").read_text())
    assert report["passed"] is True
    assert report["environment"] == parity.environment()
    assert {result["name"] for result in report["results"]} == {case.name for case in few}
    assert {result["dtype"] for result in report["results"]} == {"float32", "float64"}
    assert {result["passed"] for result in report["results"]} == {True}
    output = capsys.readouterr().out
    assert f"{len(report['results'])} comparisons, 0 out of tolerance" in output
    assert all(case.name in output for case in few)


def test_parity_fails_where_a_case_is_out_of_tolerance(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = parity.run(parity.cases([parity.Size(2, 2, 1)])[:1], dtypes=["float32"])
    bad = good[1]._replace(measured=np.inf, ulps=np.float64(np.inf), passed=np.False_)
    monkeypatch.setattr(parity, "run", lambda **_: [good[0], bad, *good[2:]])
    assert cli.run(["parity", "--json", "report"]) == 1
    report = json.loads(Path("report").read_text())
    assert report["passed"] is False
    assert [result["measured"] for result in report["results"]].count(None) == 1
    output = capsys.readouterr().out
    assert "Out of tolerance" in output
    assert "FAILED" in output
    assert bad.quantity in output


def test_tasks_are_listed_with_an_example_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["tasks"]) == 0
    output, complaint = capsys.readouterr()
    assert not complaint
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) <= 80
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows if row[0]] == list(TASKS)
    cells = dict.fromkeys(TASKS, "")
    for name, text in rows:
        cells[name or next(reversed([each for each in cells if cells[each]]))] += f"{text} "
    for task in TASKS.values():
        assert cells[task.name].startswith(f"{task.title} ({task.paper}) ")
    assert cells["anbn"].endswith(" . a a a a a a a a a b b b b b b b b b a a a a a a a a a b b b b b b b b b . ")


def test_help_version_and_tasks_need_no_framework() -> None:
    """Nor does the package."""
    run = python(
        "-c",
        "import sys\nimport diffstack\nassert not {'jax', 'torch', 'numpy'} & set(sys.modules)\n"
        "from diffstack import cli\n"
        "for words in ([], ['--help'], ['learn', '--help'], ['tasks'], ['--version']):\n"
        "    assert cli.run(words) == 0, words\n"
        "assert not {'jax', 'torch', 'optax', 'matplotlib'} & set(sys.modules)",
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "learn" in run.stdout
    assert run.stdout.endswith(f"diffstack {__version__}\n")


# What it refuses.


class Bad(NamedTuple):
    """An argument that cannot be used.

    Attributes:
        arguments: of the command.
        name: that of the argument, which the message must say.
        says: more that it must say.
        prepare: what to do in the folder first.
    """

    arguments: Sequence[str]
    name: str
    says: Sequence[str] = ()
    prepare: Callable[[], Any] = lambda: None


def bad_npy(array: Any, *says: str) -> Bad:
    return Bad(["learn", "bad.npy"], "TARGET", ("'bad.npy'", *says), lambda: np.save("bad.npy", array))


def bad_bytes(name: str, data: bytes, *says: str) -> Bad:
    return Bad(["learn", name], "TARGET", (repr(name), *says), lambda: Path(name).write_bytes(data))


def bad_option(name: str, value: str, *says: str, prepare: Callable[[], Any] = lambda: None) -> Bad:
    return Bad(["learn", "target.csv", name, value], name, (repr(value)[1:-1], *says), prepare)


def closed_folder() -> str:
    """A folder in which nobody may write, root included where it is the user."""
    if os.geteuid() == 0:
        return "/proc"
    Path("closed").mkdir(mode=0o555, exist_ok=True)
    return "closed"


WHOLE = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"
WHOLE += b" " * (127 - len(WHOLE)) + b"\n" + bytes(16)
HUGE = WHOLE.replace(b"(2,), }" + b" " * 18, b"(2000000000000000000,), }")

BAD = {
    "no target": Bad(["learn"], "TARGET"),
    "no such command": Bad(["lern", "target.csv"], "lern"),
    "no such option": Bad(["learn", "target.csv", "--stepz", "3"], "--stepz"),
    "an option without its value": Bad(["learn", "target.csv", "--steps"], "--steps"),
    "two targets": Bad(["learn", "target.csv", "other.csv"], "other.csv"),
    "no such file": Bad(["learn", "nothing.npy"], "TARGET", ["'nothing.npy'", "No such file"]),
    "a line break in a name": Bad(["learn", "a\nb.npy"], "TARGET", [r"'a\nb.npy'"]),
    "a name that is too long": Bad(["learn", "x" * 300 + ".csv"], "TARGET", ["too long"]),
    "a directory": Bad(["learn", "."], "TARGET", ["'.'", "a directory"]),
    "a device": Bad(["learn", "/dev/null"], "TARGET", ["'/dev/null'"]),
    "a named pipe": Bad(
        ["learn", "pipe.npy"], "TARGET", ["'pipe.npy'", "no regular file"], lambda: os.mkfifo("pipe.npy")
    ),
    "an unknown ending": bad_bytes("bad.txt", b"1,2\n", "'.txt'", ".npy or .csv"),
    "no ending": bad_bytes("bad", b"1,2\n", ".npy or .csv"),
    "an empty csv": bad_bytes("bad.csv", b"", "empty"),
    "a blank csv": bad_bytes("bad.csv", b"\n  \n", "empty"),
    "a ragged csv": bad_bytes("bad.csv", b"1,2\n\n3\n", "2 numbers", "got 1 in row 3"),
    "a header": bad_bytes("bad.csv", b"a,b\n1,2\n", "'a'", "row 1, column 1"),
    "text": bad_bytes("bad.csv", b"1,2\n3,four\n", "'four'", "row 2, column 2"),
    "an empty cell": bad_bytes("bad.csv", b"1,2\n3,\n", "''", "row 2, column 2"),
    "semicolons": bad_bytes("bad.csv", b"1;2\n3;4\n", "'1;2'", "row 1, column 1"),
    "NaN in a csv": bad_bytes("bad.csv", b"1,nan\n", "'nan'", "row 1, column 2"),
    "infinity in a csv": bad_bytes("bad.csv", b"1,1e999\n", "'1e999'"),
    "an underscore in a csv": bad_bytes("bad.csv", b"1,1_0\n", "'1_0'"),
    "a long cell": bad_bytes("bad.csv", b"x " * 9999, "row 1"),
    "an open quote": bad_bytes("bad.csv", b'1,"2\n3,4\n', "comma-separated"),
    "not UTF-8": bad_bytes("bad.csv", b"1,\xff\n", "UTF-8"),
    "an empty npy": bad_bytes("bad.npy", b""),
    "text in an npy": bad_bytes("bad.npy", b"1,2\n3,4\n"),
    "a cut npy": bad_bytes("bad.npy", WHOLE[:-1]),
    "a cut header": bad_bytes("bad.npy", WHOLE[:50]),
    "a zip": bad_bytes("bad.npy", b"PK\x03\x04" + bytes(100)),
    "a header that lies": bad_bytes("bad.npy", HUGE),
    "a header that is no Python": bad_bytes("bad.npy", WHOLE.replace(b"(2,)", b"(2,'")),
    "objects": bad_npy(np.asarray([1, None]), "Object arrays"),
    "strings": bad_npy(np.asarray(["a"]), "<U1"),
    "dates": bad_npy(np.asarray(["2020-01-01"], "datetime64[D]"), "datetime64"),
    "records": bad_npy(np.zeros(2, [("a", "f4")]), "f4"),
    "complex": bad_npy(np.ones(2, complex), "complex128"),
    "long doubles": bad_npy(np.ones(2, np.longdouble), str(np.dtype(np.longdouble))),
    "no entries": bad_npy(np.ones((2, 0)), "(2, 0)"),
    "a single number": bad_npy(np.asarray(1.0), "axis"),
    "NaN in an npy": bad_npy(np.asarray([[1.0, np.nan]]), "nan", "(0, 1)"),
    "large numbers in an npy": bad_npy(np.asarray([1, 2e19], np.float32), "squares", "(1,)"),
    "infinity in an npy": bad_npy(np.asarray([np.inf, 1], np.float16), "inf", "(0,)"),
    "negative steps": bad_option("--steps", "-1", "at least 0"),
    "half a step": bad_option("--steps", "1.5", "integer"),
    "steps in words": bad_option("--steps", "many", "integer"),
    "a learning rate beyond float32": Bad(
        ["learn", "target.npy", "--learning-rate", "1e30"], "--learning-rate", ["1e+30", "1.8e+19", "float32"]
    ),
    "no learning rate": bad_option("--learning-rate", "0", "above 0"),
    "a negative learning rate": bad_option("--learning-rate", "-0.1", "above 0"),
    "a NaN learning rate": bad_option("--learning-rate", "nan", "finite"),
    "an infinite learning rate": bad_option("--learning-rate", "1e999", "finite"),
    "a learning rate in words": bad_option("--learning-rate", "fast", "number"),
    "an unknown backend": bad_option("--backend", "numpy", "jax or torch"),
    "an output of an unknown ending": bad_option("--out", "x.txt", ".npy or .csv"),
    "an output without a folder": bad_option("--out", "none/x.npy", "No such file"),
    "an output in a file": bad_option("--out", "target.npy/x.npy", "Not a directory"),
    "an output that is a directory": bad_option(
        "--out", "dir.npy", "a directory", prepare=lambda: Path("dir.npy").mkdir()
    ),
    "an output in a closed folder": Bad(
        ["learn", "target.csv", "--out", "closed.npy"],
        "--out",
        prepare=lambda: Path("closed.npy").symlink_to(Path(closed_folder(), "x.npy")),
    ),
    "an output whose name is too long": bad_option("--out", "x" * 300 + ".npy", "too long"),
    "an output over the input": Bad(
        ["learn", "target.csv", "--out", "./target.csv"], "--out", ["'target.csv'", "other than TARGET"]
    ),
    "an output over the input by a link": bad_option(
        "--out", "link.csv", "other than TARGET", prepare=lambda: Path("link.csv").symlink_to("target.csv")
    ),
    "a csv of rank 3": Bad(
        ["learn", "bad.npy", "--out", "x.csv"],
        "--out",
        ["'x.csv'", ".npy"],
        lambda: np.save("bad.npy", np.ones((2, 2, 2))),
    ),
    "a picture of an unknown ending": bad_option("--plot", "x.gif", ".png"),
    "a picture without a folder": bad_option("--plot", "none/x.png", "No such file"),
    "a picture over the output": Bad(
        ["learn", "target.csv", "--out", "link.csv", "--plot", "x.png"],
        "--plot",
        ["other than --out"],
        lambda: Path("link.csv").symlink_to("x.png"),
    ),
    "an unknown device": Bad(["parity", "--device", "tpu"], "--device", ["'tpu'", "cpu or cuda"]),
    "an unknown dtype": Bad(["parity", "--dtype", "int8"], "--dtype", ["'int8'", "float16"]),
    "a report without a folder": Bad(["parity", "--json", "none/x"], "--json", ["'none/x'"]),
    "a demo in a file": Bad(["demo", "--out", "target.csv"], "--out", ["'target.csv'"]),
    "a demo in a closed folder": Bad(["demo", "--out", "/proc/x"], "--out", ["'/proc/x'"]),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], bad: Bad) -> None:
    bad.prepare()
    before = files(folder)
    assert cli.run(bad.arguments) == 2
    output, complaint = capsys.readouterr()
    assert not output
    assert complaint.startswith("diffstack: ")
    assert complaint.endswith("\n")
    assert len(complaint.splitlines()) == 1
    for words in (bad.name, *bad.says):
        assert words in complaint
    assert files(folder) == before


def test_cuda_that_is_not_there_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        parity.environment("cuda")
    except RuntimeError:
        assert cli.run(["parity", "--device", "cuda", "--json", "x"]) == 2
        assert re.fullmatch(r"diffstack: --device: expected a GPU .*, got none\n", capsys.readouterr().err)
        assert set(files(folder)) == {"target.csv", "target.npy"}
    else:
        few = parity.cases([parity.Size(2, 2, 1)])[:1]
        assert all(result.passed for result in parity.run(few, device="cuda", dtypes=["float32"]))


@pytest.mark.parametrize("name", _backends.NAMES)
def test_the_largest_numbers_stay_finite(folder: Path, name: str) -> None:
    largest = np.float32(_files.largest(np.dtype(np.float32)))
    np.save("large.npy", np.asarray([largest, -largest, 1.0], np.float32))
    assert cli.run(["learn", "large.npy", "--backend", name, "--learning-rate", "1e19"]) == 0
    assert np.isfinite(np.load("large.learned.npy")).all()


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_a_full_disk_keeps_the_older_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def fill(file: BinaryIO, *_: Any, **__: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    where = "diffstack._files.write_array" if option == "--out" else "matplotlib.figure.Figure.savefig"
    monkeypatch.setattr(where, fill if option == "--out" else lambda _, file, **__: fill(file))
    for name in ("x.npy", "x.png"):
        Path(name).write_bytes(b"older")
    before = files(folder)
    arguments = ["learn", "target.npy", "--backend", "torch", "--steps", "1", "--out", "x.npy", "--plot", "x.png"]
    assert cli.run(arguments) == 2
    assert re.fullmatch(rf"diffstack: {option}: .*No space left on device\)\n", capsys.readouterr().err)
    assert files(folder) == before


@pytest.mark.parametrize("missing", ["typer", "rich", "matplotlib"])
def test_the_command_says_what_it_needs(folder: Path, missing: str) -> None:
    run = command(f"sys.modules[{missing!r}] = None", "--help")
    assert run.returncode == 2
    assert run.stderr == f"diffstack: {missing} is not installed; install it with: pip install 'diffstack[cli]'\n"


def test_ctrl_c_ends_a_long_run(folder: Path) -> None:
    before = files(folder)
    terminal, theirs = os.openpty()
    words = ["learn", "target.npy", "--steps", "1000000000", "--plot", "x.png"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-m", "diffstack", *words], stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        seen = ""
        while not re.search(r"learning .*[1-9]\d*/1000000000", seen):
            assert process.poll() is None
            seen += os.read(terminal, 4096).decode()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "diffstack: interrupted\n")
    os.write(theirs, b"end")
    while not seen.endswith("end"):
        seen += os.read(terminal, 4096).decode()
    os.close(terminal)
    os.close(theirs)
    assert seen.endswith("\x1b[?25h\r\nend")
    assert files(folder) == before


def test_ctrl_c_while_writing_leaves_no_half_file(folder: Path) -> None:
    before = files(folder)
    # What it writes is made up, so that no framework has to be imported.
    run = command(
        "import os, signal, pathlib\nimport numpy as np\nfrom unittest.mock import Mock\n"
        "from diffstack import _backends, _files\n"
        "_backends.load = Mock()\n"
        "_backends.learn = lambda *_: _backends.Run(np.ones(1), {1: np.ones((4, 4))}, np.ones((4, 4)))\n"
        "def write(file, *_):\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        "    print(*pathlib.Path().glob('.diffstack-*'), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "_files.write_array = write",
        *("learn", "target.npy", "--steps", "1", "--backend", "torch"),
    )
    assert (run.returncode, run.stderr) == (130, "diffstack: interrupted\n")
    assert run.stdout.startswith(".diffstack-")
    assert files(folder) == before


# The picture.


@pytest.mark.parametrize(
    ("losses", "snapshots"),
    [
        ({"JAX": [3.0, 1.0], "PyTorch": [3.0, 1.0]}, {0: np.ones((2, 2)), 2: np.eye(2)}),
        ({"JAX": [1.0]}, {0: np.ones(5), 1: np.arange(5.0)}),
        ({"JAX": [0.0, 0.0]}, {0: np.ones((3, 2, 2)), 2: np.ones((3, 2, 2))}),
        ({"JAX": [np.inf, 1.0]}, {0: np.ones((100, 30), np.float16), 2: np.zeros((100, 30), np.float16)}),
        ({"JAX": []}, {0: np.ones((1, 1))}),
    ],
    ids=["both", "vectors", "no loss", "large", "no steps"],
)
def test_plots_runs_of_every_size(
    tmp_path: Path, losses: dict[str, list[float]], snapshots: dict[int, np.ndarray]
) -> None:
    figure = plot_learning({name: np.asarray(values) for name, values in losses.items()}, snapshots)
    figure.savefig(tmp_path / "x.png")
    assert png_size(tmp_path / "x.png") == (1200, 500)
    axes = figure.get_axes()
    lines = axes[0].get_lines()
    assert [line.get_label() for line in lines] == list(losses)
    positive = any(0 < loss < np.inf for values in losses.values() for loss in values)
    assert axes[0].get_yscale() == ("log" if positive else "linear")
    images = [image for one in axes[1:-1] for image in one.get_images()]
    assert len({image.get_clim() for image in images}) == 1
    for image, array in zip(images, snapshots.values(), strict=True):
        np.testing.assert_array_equal(image.get_array(), array.reshape(len(array), -1))
