"""The table of results in Markdown, and their picture."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure


def table(found: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown: what each seed scored in each test."""
    heads = (
        "row, lengths in training, network",
        "test",
        "score of each seed",
        "solved by",
        "minutes to train + to test",
    )
    lines = [f"| {' | '.join(heads)} | the paper |", "|---|---|---|---|---|---|"]
    for each in found:
        minutes = f"{each['minutes']['training']:.1f} + {each['minutes']['tests']:.1f}"
        # The lines of a row say one thing each of what it is.
        about = (each["name"], *each["about"])
        for i, test in enumerate(each["tests"]):
            scores = ", ".join(_rounded(score[each["metric"]]) for score in test["scores"])
            is_last, rest = i + 1 == len(each["tests"]), ("", "") if i else (minutes, each["paper"])
            first = ", ".join(about[i:] if is_last else about[i : i + 1])
            there = f"{test['there']} of {len(test['scores'])}"
            lines.append("| " + " | ".join((first, _named(test), scores, there, *rest)) + " |")
    return "\n".join(lines) + "\n"


def _rounded(score: float) -> str:
    """Three digits, or more where these would say that there is no mistake; 0 and 1 are exact."""
    if score in (0, 1):
        return f"{score:.0f}"
    return f"{score:.5f}" if 0.9995 <= score < 1 else f"{score:.3f}"


def _named(test: dict[str, Any]) -> str:
    shortest, longest = test["lengths"]
    lengths = str(longest) if shortest == longest else f"{shortest} to {longest}"
    return f"{lengths}, {'hard' if test['hard'] else 'soft'}"


def picture(found: Sequence[dict[str, Any]]) -> Figure:
    """Every seed of every test as a dot, filled where its actions were hard; cross entropies have their own panel."""
    panels = [[each for each in found if (each["metric"] == "excess") == excess] for excess in (False, True)]
    labels = (
        "score of each seed: 1 is without a mistake",
        "nats a symbol of each seed above the source; the line is the goal",
    )
    panels, labels = zip(*((some, label) for some, label in zip(panels, labels, strict=True) if some), strict=True)
    heights = [sum(len(each["tests"]) for each in some) for some in panels]
    figure = Figure(figsize=(10, 1 + 0.42 * sum(heights)), layout="constrained")
    all_axes = figure.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0]
    for axes, some, label in zip(all_axes, panels, labels, strict=True):
        _dots(axes, some)
        axes.set_xlabel(label)
    return figure


def _dots(axes: Any, found: Sequence[dict[str, Any]]) -> None:
    labels: list[str] = []
    for each in found:
        for test in each["tests"]:
            scores = [score[each["metric"]] for score in test["scores"]]
            fill = {"facecolors": "#1f3b73" if test["hard"] else "none", "edgecolors": "#1f3b73"}
            axes.scatter(scores, _apart(scores, len(labels)), s=40, clip_on=False, zorder=3, **fill)
            labels.append(f"{each['name']}, {_named(test)}")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    if found[0]["metric"] == "excess":
        axes.set_xlim(left=0)
        axes.axvline(found[0]["goal"], color="#f28e2b", linestyle=":", linewidth=2)
    else:
        axes.set_xlim(0, 1)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _apart(scores: Sequence[float], place: int) -> list[float]:
    """Where dots lie around a place, so that none covers another that has nearly its score."""
    near = [[other for other in range(len(scores)) if abs(scores[other] - score) < 0.02] for score in scores]
    return [place + 0.15 * (some.index(i) - (len(some) - 1) / 2) for i, some in enumerate(near)]
