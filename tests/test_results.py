"""The command that makes the table of results."""

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import results.__main__ as command
from diffstack._layers import Stack
from diffstack.recipes import Recipe
from results.rows import PROGRAMS, ROWS, Program, Row, Trial

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_rows_are_trained_tested_and_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"cell": "rnn", "hidden": 4, "embedding": 3, "lengths": (1, 2), "testing": (2, 2), "batch": 2, "tests": 2}
    recipe = Recipe("reverse_string", (Stack("superposition", 2),), steps=2, check=2, seeds=(0, 1), **sizes)
    tests = (Trial((2, 2), False, 2), Trial((3, 4), True, 2))
    rows = tuple(Row(name, recipe, tests, goal, "1.00") for name, goal in (("easy", 0.0), ("hard", 1.1)))
    program = Program(
        "dyck_2",
        ("-c", "print('first: 0.01 there, then: 0.05 there')"),
        r": ([\d.]+) there",
        ("as it is",),
        0.05,
        "0.05",
    )
    monkeypatch.setattr(command, "ROWS", rows)
    monkeypatch.setattr(command, "PROGRAMS", (program,))
    app = command.typer.Typer()
    app.command()(command.main)

    def run(*arguments: str) -> list[str]:
        result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
        assert result.exit_code == 0, result.output
        return (tmp_path / "results.md").read_text().splitlines()

    head, line, *_ = run("easy")
    assert head.count("|") == line.count("|") == 7
    written = json.loads((tmp_path / "easy.json").read_text())
    assert written["steps"] == {"0": 2, "1": 2}
    assert [(test["hard"], test["there"]) for test in written["tests"]] == [(False, 2), (True, 2)]
    assert not (tmp_path / "hard.json").exists()
    log = (tmp_path / "easy" / "log.csv").read_text()
    _, _, *lines, last = run()
    assert last.startswith("| dyck_2, as it is | 40 to 80, soft | 0.050, 0.050, 0.050, 0.050, 0.050 | 5 of 5 | ")
    # Its seeds are there, and do not run again.
    monkeypatch.setattr(command, "PROGRAMS", (program._replace(words=("-c", "1/0")),))
    assert run("dyck_2")[-1].split(" | ")[2] == last.split(" | ")[2]
    # One that fails is told in a line.
    monkeypatch.setattr(command, "PROGRAMS", (program._replace(name="anbn", words=("-c", "raise SystemExit(3)")),))
    with pytest.raises(command.typer.TyperException, match=r"^anbn: its program ended with 3 and without a score"):
        command.main(["anbn"], tmp_path)
    # The row that was there has not learned on, and no seed reaches what is above 1.
    assert (tmp_path / "easy" / "log.csv").read_text() == log
    about = "| lengths 1 to 2, rnn of 4, superposition:2"
    assert [line.split(" | ")[0] for line in lines] == ["| easy", about, "| hard", about]
    assert [line.split(" | ")[3] for line in lines] == ["2 of 2", "2 of 2", "0 of 2", "0 of 2"]
    assert (tmp_path / "results.png").stat().st_size > 0
    assert CliRunner().invoke(app, ["nothing"]).exit_code == 2


def test_the_results_that_are_told_are_those_of_the_rows() -> None:
    """What docs/results.md has was trained by the recipes that are in rows.py now, and by no others."""
    folder = Path(__file__).parents[1] / "docs" / "measurements"
    told = {path: json.loads(path.read_text()) for path in folder.glob("results-*.json")}
    assert {each["name"] for each in told.values()} == {row.name for row in (*ROWS, *PROGRAMS)}
    for row in ROWS:
        each = told[folder / f"results-{row.name}.json"]
        assert Recipe.from_json(json.dumps(each["recipe"])) == row.recipe, row.name
        assert [(tuple(test["lengths"]), test["hard"], test["count"]) for test in each["tests"]] == [*row.tests]


def test_every_row_can_be_trained() -> None:
    """Its recipe is one, its hard tests are of families that can be rounded, and no two share a folder."""
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert Recipe.from_json(row.recipe.as_json()) == row.recipe
        assert dataclasses.replace(row.recipe, steps=1).steps == 1
        assert row.tests
