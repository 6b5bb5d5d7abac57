"""Docstrings as the house writes them, read as Google's style: the sections of the two differ in a name."""

from typing import Any

from griffe import Extension, Object

SECTIONS = {"Example:": "Examples:", "References:": "Note: From"}


class Sections(Extension):
    """One `Example:` is a section of examples, and `References:` is a note."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            lines = obj.docstring.value.split("\n")
            obj.docstring.value = "\n".join(self._line(line) for line in lines)

    @staticmethod
    def _line(line: str) -> str:
        name = line.strip()
        return line.replace(name, SECTIONS[name]) if name in SECTIONS else line
