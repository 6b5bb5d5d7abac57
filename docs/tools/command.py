"""The page of the command, from what the command says of itself.

`python docs/tools/command.py` writes `docs/reference/command.md`; a test says when that is due.
"""

import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from diffstack.cli import app
from diffstack.families import FAMILIES

PAGE = Path(__file__).parents[1] / "reference" / "command.md"
HEAD = """# The command

`pip install 'diffstack[cli]'` brings `diffstack`, which walks through the library, learns the input of a target,
compares the frameworks, and [trains](../use/training.md) networks. `diffstack COMMAND --help` says on a terminal what
this page says. An error that you can correct ends as one line on stderr, with exit status 2.
"""


def page() -> str:
    """The page as Markdown."""
    root: Any = get_command(app)
    return "\n".join([HEAD, *(_section(name, each) for name, each in root.commands.items())])


def _section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    words = " ".join(["diffstack", name, *(_metavar(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"## diffstack {name}", "", f"`{words}`", "", " ".join(command.help.split()), ""]
    if arguments or options:
        lines += ["| argument | what it is |", "|---|---|"]
        lines += [f"| {_code(_metavar(each))} | {_about(each)} |" for each in arguments]
        lines += [f"| {_code(_flag(each))} | {_about(each)} |" for each in options]
        lines.append("")
    return "\n".join(lines)


def _metavar(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


def _flag(option: Any) -> str:
    return "/".join(option.opts) + ("" if option.is_flag else f" {_metavar(option)}")


def _code(text: str) -> str:
    """As code, in which a bar does not end a cell of a table."""
    return f"<code>{text.replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _about(parameter: Any) -> str:
    about = " ".join((parameter.help or "").split())
    shown = parameter.default if parameter.param_type_name == "option" and not parameter.is_flag else None
    if shown not in (None, ()) and not callable(shown) and "default" not in about:
        about += f" [default: {shown}]"
    # A reader of the page has the list of families at hand, which grows.
    about = about.replace(", ".join(FAMILIES), "[those of the reference](index.md)")
    # A star, a bar or an underscore is no Markdown here.
    return re.sub(r"([*|_])", r"\\\1", about)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
