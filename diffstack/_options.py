"""Options of the command, whose errors say what was given."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import typer

from diffstack import _files


def option(flag: str, metavar: str, expected: str, parse: Callable[[str], Any], allowed: Any, about: str) -> Any:
    """Declare an option whose error says what was given. Those of typer's own types do not."""

    def parser(given: str) -> Any:
        with suppress(ValueError):
            if allowed(value := parse(given)):
                return value
        _files.refuse(flag, expected, repr(given))

    return typer.Option(flag, metavar=metavar, parser=parser, help=f"{about}: {expected}.")


def choice(flag: str, choices: Sequence[str], about: str) -> Any:
    return option(flag, "|".join(choices), " or ".join(choices), str, choices.__contains__, about)
