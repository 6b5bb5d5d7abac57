"""Stacks in chunks of steps, for a controller that decides each step from the read before it.

A file is a form: five functions with which `unroll` runs a structure over a sequence. `fit` makes the state as large as
some steps need it, `open` takes out of it what a chunk of steps works on, a part that stays `fixed` and a `window` that
does not; `tick` is one step on that, `close` brings the state over the chunk, and `end` makes it what the caller gets.
`_stepwise.py` is the definition in the same form.
"""

from diffstack.jax_impl._chunked import (
    discrete,
    neural_deque,
    neural_queue,
    neural_stack,
    nondeterministic,
    pointer,
    superposition,
)

FORMS = {
    "pointer": pointer,
    "discrete": discrete,
    "superposition": superposition,
    "neural_stack": neural_stack,
    "neural_queue": neural_queue,
    "neural_deque": neural_deque,
    "nondeterministic": nondeterministic,
}
