"""What a run found: tables for people, JSON for programs, pictures."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy
import torch
from matplotlib.figure import Figure
from rich.table import Table

import diffstack
from benchmarks.measure import Result, Work

Measured = Sequence[tuple[Work, list[Result]]]


def environment(device: str) -> dict[str, Any]:
    """What the times depend on."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "diffstack": diffstack.__version__,
        "jax": jax.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "device": gpu or device,
    }


def table(measured: Measured) -> Table:
    """The results of works with one title: median, spread, and ratios within the run."""
    work = measured[0][0]
    result = Table(title=f"{work.title}, {_sizes(work)}", title_justify="left", title_style="bold")
    result.add_column(work.axis, justify="right")
    result.add_column("")
    for heading in ("median", "10% to 90%", "calls", f"of {work.limit}", f"faster than {work.reference}", "temporary"):
        result.add_column(heading, justify="right")
    for work, results in measured:
        for each in results:
            size = str(work.size)
            if each.median is None:
                result.add_row(size, each.name, f"skipped: {each.skipped}", *[""] * 5, style="dim")
            else:
                spread = f"{_seconds(each.low)} to {_seconds(each.high)}"
                ratios = _times(_ratio(each, work.limit, results)), _times(1 / _ratio(each, work.reference, results))
                memory = _bytes(each.temporary_bytes)
                result.add_row(size, each.name, _seconds(each.median), spread, str(each.repetitions), *ratios, memory)
        result.add_section()
    return result


def as_json(about: Mapping[str, Any], measured: Measured) -> str:
    """Everything that was measured, in seconds and bytes."""
    works = [
        {
            "benchmark": work.benchmark,
            "title": work.title,
            "mode": work.mode,
            "shape": work.shape,
            "limit": work.limit,
            "reference": work.reference,
            "results": [each._asdict() for each in results],
        }
        for work, results in measured
    ]
    return json.dumps({"environment": dict(about), "works": works}, indent=1, allow_nan=False) + "\n"


def picture(measured: Measured, path: Path) -> None:
    """Draw time and temporary memory against size: a line for each competitor shown, a column for each title."""
    titles = list(dict.fromkeys(work.title for work, _ in measured))
    figure = Figure(figsize=(1 + 5 * len(titles), 8), layout="constrained")
    panels = figure.subplots(2, len(titles), sharey="row", squeeze=False)
    lines: dict[str, Any] = {}
    names = list(dict.fromkeys(name for work, _ in measured for name in work.shown))
    for column, title in enumerate(titles):
        rows = [(work, results) for work, results in measured if work.title == title]
        for name in names:
            points = [(w.size, e) for w, results in rows for e in results if e.name == name and e.median is not None]
            if points and name in rows[0][0].shown:
                lines[name] = _lines(panels[:, column], rows[0][0].shown.index(name), name, points)
        for panel in panels[:, column]:
            sizes = sorted({work.size for work, _ in rows})
            panel.set(xscale="log", yscale="log", xlabel=rows[0][0].axis)
            panel.set_xticks(sizes, [str(size) for size in sizes])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        panels[0, column].set_title(title.replace(", ", "\n", 1))
    panels[0, 0].set_ylabel("seconds: median, and 10% to 90%")
    panels[1, 0].set_ylabel("temporary memory, bytes")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=2 * len(titles), frameon=False)
    figure.savefig(path, dpi=110)


def _lines(panels: Any, place: int, name: str, points: Sequence[tuple[int, Result]]) -> Any:
    sizes, results = zip(*points, strict=True)
    median, low, high = (numpy.array([getattr(e, q) for e in results]) for q in ("median", "low", "high"))
    # The baseline comes first.
    style: dict[str, Any] = {
        "color": ("#7f7f7f", "#1f77b4", "#d62728", "#ff7f0e")[place],
        "linestyle": "dashed" if place == 0 else "solid",
        "marker": "o",
        "markersize": 4,
    }
    panels[0].fill_between(sizes, low, high, color=style["color"], alpha=0.15, linewidth=0)
    # Nothing at all has no place on a logarithmic axis.
    panels[1].plot(sizes, [e.temporary_bytes or numpy.nan for e in results], **style)
    return panels[0].plot(sizes, median, label=name, **style)[0]


def _sizes(work: Work) -> str:
    """The lengths of the axes that stay the same."""
    return ", ".join(f"{name} = {length}" for name, length in work.shape.items() if name != work.axis)


def _ratio(each: Result, name: str, results: Sequence[Result]) -> float:
    other = next((result.median for result in results if result.name == name), None)
    return float("nan") if other is None or each.median is None else each.median / other


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _seconds(seconds: float | None) -> str:
    assert seconds is not None
    for scale, unit in ((1, "s"), (1e3, "ms")):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _bytes(count: int | None) -> str:
    assert count is not None
    return f"{count / 1e6:.3g} MB"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
