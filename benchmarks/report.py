"""What a run found: tables for people, JSON for programs, pictures."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich.table import Table

import diffstack
from benchmarks.measure import Result, Work

Measured = Sequence[tuple[Work, list[Result]]]
# The baseline in grey, then the others in the order of `Work.drawn`.
COLOURS = "#777777", "#e6862c", "#5aa5d8", "#1f3b73"


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
                limit, reference = (_median(name, results) for name in (work.limit, work.reference))
                ratios = _ratio(each.median, limit), _ratio(reference, each.median)
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


def as_markdown(name: str, about: Mapping[str, Any], measured: Measured) -> str:
    """Every median and every temporary memory, a table for each title."""
    device, date = about["device"] if about["device"] != "cpu" else about["cpu"], about["date"][:10]
    lines = [
        f"# {name}",
        "",
        f"{device}, {about['cores']} cores, {date}; JAX {about['jax']}, PyTorch {about['torch']}.",
    ]
    for title, group in groupby(measured, key=lambda each: each[0].title):
        columns = [(work, {each.name: each for each in results}) for work, results in group]
        work = columns[0][0]
        lines += ["", f"## {title}", "", f"{_sizes(work)}. Median time and temporary memory.", ""]
        lines.append("".join(f"| {work.axis} = {work.size} " for work, _ in columns).join(["| ", "|"]))
        lines.append("|---" * (len(columns) + 1) + "|")
        for competitor in dict.fromkeys(name for _, results in columns for name in results):
            cells = (_cell(results.get(competitor)) for _, results in columns)
            lines.append(f"| {competitor} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(measured: Measured, path: Path) -> None:
    """Draw time and temporary memory against size: a column for each title, a line for each competitor to be drawn."""
    titles = list(dict.fromkeys(work.title for work, _ in measured))
    with matplotlib.rc_context({"font.size": 12, "axes.titlesize": 13, "legend.fontsize": 11}):
        figure = Figure(figsize=(0.5 + 5 * len(titles), 7.5), layout="constrained")
        panels = figure.subplots(2, len(titles), sharex="col", sharey="row", squeeze=False)
        for column, title in enumerate(titles):
            _draw([each for each in measured if each[0].title == title], panels[:, column])
        for panel, label, unit in zip(panels[:, 0], ("time", "temporary memory"), "sB", strict=True):
            panel.set_ylabel(label)
            panel.yaxis.set_major_formatter(EngFormatter(unit))
        lines = {str(line.get_label()): line for panel in panels[0] for line in panel.lines}
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, dpi=100)


def _draw(measured: Measured, panels: Any) -> None:
    """One column: the medians, the span from 10% to 90% as a shade, and the memory below."""
    work = measured[0][0]
    for place, name in enumerate(work.drawn):
        points = [(w.size, e) for w, results in measured for e in results if e.name == name and e.median is not None]
        sizes, results = [size for size, _ in points], [each for _, each in points]
        style: Any = {"color": COLOURS[place], "linestyle": "solid" if place else "dashed", "linewidth": 2}
        # Lines that lie on one another stay visible, and what takes no memory has no place on a logarithmic axis.
        style |= {"marker": "oDsv"[place], "markersize": 9 - place, "label": name}
        panels[0].plot(sizes, [each.median for each in results], **style)
        low, high = [each.low for each in results], [each.high for each in results]
        panels[0].fill_between(sizes, low, high, color=style["color"], alpha=0.15, linewidth=0)
        panels[1].plot(sizes, [each.temporary_bytes or numpy.nan for each in results], **style)
    sizes = sorted({work.size for work, _ in measured})
    for panel in panels:
        panel.set(xscale="log", yscale="log")
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_title(work.title.replace(", ", "\n", 1))
    panels[1].set_xlabel(work.axis)


def _sizes(work: Work) -> str:
    """The lengths of the axes that stay the same."""
    return ", ".join(f"{name} = {length}" for name, length in work.shape.items() if name != work.axis)


def _median(name: str, results: Sequence[Result]) -> float | None:
    return next((each.median for each in results if each.name == name), None)


def _ratio(one: float | None, other: float | None) -> str:
    if one is None or other is None:
        return ""
    return f"{one / other:,.0f}" if one / other >= 100 else f"{one / other:.3g}"


def _cell(each: Result | None) -> str:
    return "" if each is None or each.median is None else f"{_seconds(each.median)}, {_bytes(each.temporary_bytes)}"


def _seconds(seconds: float | None) -> str:
    assert seconds is not None
    for scale, unit in ((1, "s"), (1e3, "ms")):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _bytes(count: int | None) -> str:
    assert count is not None
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
