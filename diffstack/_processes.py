"""What torchrun tells each of the processes that it starts."""

import os


def count() -> int:
    """How many processes torchrun has started; 1 where it has started none."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first() -> bool:
    """Whether this process is the first of them, which alone writes files and speaks."""
    return count() == 1 or os.environ["RANK"] == "0"
