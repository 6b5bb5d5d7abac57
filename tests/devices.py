"""What the devices' tests of both frameworks share: the code of docs/use/devices.md, and how far results are apart."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "use" / "devices.md"


def page(uses: str) -> dict[str, Any]:
    """What the blocks of the page define that use this name, after all of them have run."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec("\n".join(block for block in blocks if f"{uses}." in block), names)
    return names


def apart(actual: Sequence[Any], expected: Sequence[Any]) -> float:
    """The largest difference, absolute or relative, whichever is smaller."""
    pairs = [tuple(map(np.asarray, pair)) for pair in zip(actual, expected, strict=True)]
    assert all(left.dtype == right.dtype == np.float64 and left.shape == right.shape for left, right in pairs)
    return max(float((np.abs(left - right) / np.maximum(np.abs(right), 1)).max()) for left, right in pairs)
