"""The chart of the ratios: how many times better or worse than the peer, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.row import Outcome, Result

BETTER, WORSE, BAR, INK = "#2f7d5b", "#b3543c", "#3b5b8c", "#777777"


def better(result: Result) -> float:
    """How many times better ours is than the peer; below 1, the peer is better."""
    return 1 / result.ratio if result.row.smaller else result.ratio


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write an SVG for light and dark pages: no background, medium grey text."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "snakepit"  # the same numbers give the same file
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    shown = [outcome for outcome in outcomes if isinstance(outcome, Result) and outcome.ratio > 0]
    if not shown:
        return
    names = [f"{result.row.name}  ({result.row.peer})" for result in shown]
    values = [better(result) for result in shown]
    figure, axes = pyplot.subplots(figsize=(10, 0.36 * len(shown) + 1.2))
    axes.barh(names, [value - 1 for value in values], left=1, color=[BETTER if v >= 1 else WORSE for v in values])
    axes.set_xscale("log", base=2)
    axes.axvline(1, color=INK, linewidth=1)
    for place, (result, value) in enumerate(zip(shown, values, strict=True)):
        axes.annotate(
            f"{value:.2g} x",
            (value, place),
            xytext=(4 if value >= 1 else -4, 0),
            color=INK,
            fontsize=8,
            textcoords="offset points",
            va="center",
            ha="left" if value >= 1 else "right",
        )
        if target := result.row.target:
            axes.plot(
                [1 / target if result.row.smaller else target], [place], marker="|", markersize=13, color=BAR, mew=2
            )
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    axes.set_xlabel("times better than the peer (blue mark: the bar)", color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
