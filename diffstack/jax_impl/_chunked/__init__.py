"""Stacks in chunks of steps, for a controller that decides each step from the read before it.

A file is a form: five functions with which `unroll` runs a structure over a sequence. `fit` makes the state as large as
some steps need it, `open` takes out of it what a chunk of steps works on, a part that stays `fixed` and a `window` that
does not; `tick` is one step on that, `close` brings the state over the chunk, and `end` makes it what the caller gets.
`_stepwise.py` is the definition in the same form, which also serves a family that has no file here.
"""

from importlib import import_module

from diffstack.families import FAMILIES

FORMS = {name: import_module(f"{__name__}.{name}") for name, family in FAMILIES.items() if family.chunked}
