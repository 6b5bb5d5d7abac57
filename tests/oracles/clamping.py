"""max(0, x) and min(x, y) as the equations mean them, with a NaN always kept.

Python's own `max` and `min` keep or drop a NaN depending on the order of their arguments.
"""

import math


def positive_part(x: float) -> float:
    """max(0, x); NaN if x is NaN."""
    return 0.0 if x < 0 else x


def smaller(x: float, y: float) -> float:
    """min(x, y); NaN if either is NaN."""
    if math.isnan(x) or math.isnan(y):
        return math.nan
    return x if x <= y else y
