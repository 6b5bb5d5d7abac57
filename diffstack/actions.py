"""The order of every action vector, and the integer codes of a program."""

from typing import Final

PUSH: Final = 0
POP: Final = 1
NOOP: Final = 2
