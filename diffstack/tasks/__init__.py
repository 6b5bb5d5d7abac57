"""The tasks of the papers, in NumPy: batches of sequences to learn from, and scores as the papers report them.

Example:
    >>> import numpy as np
    >>> from diffstack.tasks import TASKS
    >>> task = TASKS["reversal"]
    >>> batch = task.draw(np.random.default_rng(0), 10, task.training)
    >>> batch.tokens.shape == batch.targets.shape == batch.mask.shape
    True
    >>> task.score(np.eye(task.outputs)[batch.targets], batch).coarse
    1.0
"""

from diffstack.tasks import algorithms, chomsky, counting, grammars, transduction
from diffstack.tasks._task import Batch, Scores, Task

__all__ = ["TASKS", "Batch", "Scores", "Task"]

# The tasks by their names, each with the sizes of its paper.
TASKS = {
    task.name: task
    for task in (
        counting.anbn,
        counting.anb2n,
        counting.anbncn,
        counting.anbncndn,
        counting.anbmcnm,
        algorithms.memorization,
        algorithms.addition,
        transduction.copy(),
        transduction.reversal(),
        transduction.bigram_flip(),
        chomsky.reverse_string,
        chomsky.stack_manipulation,
        chomsky.modular_arithmetic,
        chomsky.solve_equation,
        grammars.marked_reversal,
        grammars.unmarked_reversal,
        grammars.padded_reversal,
        grammars.dyck_2,
        grammars.hardest_cfl,
    )
}
