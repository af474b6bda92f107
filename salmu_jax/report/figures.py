"""The report's figures, as PNG bytes: a function a figure, the same bytes for the same results.

No figure depends on the clock, on a display or on global matplotlib state: figures are built without pyplot, in the
font that matplotlib carries with it, and the PNG's metadata is left out. Each comes in a light and a dark theme.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from salmu_jax.evaluation.verdicts import FAILURE_MODES, PRECISE
from salmu_jax.report.labels import Box, nearest, place_labels
from salmu_jax.report.leaderboard import display_name

DPI = 160
Similarity = Mapping[str, Mapping[str, Sequence[float]]]
SPLITS = ("forget", "holdout_association", "holdout_identity")
_SPLIT_TITLES = {
    "forget": "forget\nshould move to Clean",
    "holdout_association": "holdout_association\nshould stay at Compromised",
    "holdout_identity": "holdout_identity\nshould stay at Compromised",
}
_BINS = 56


@dataclass(frozen=True)
class Theme:
    """The colours of one appearance of the page; hues apart under colour-vision deficiencies."""

    background: str
    text: str
    muted: str
    grid: str
    clean: str
    compromised: str
    method: str
    passes: str
    modes: tuple[str, str, str, str]
    low: str
    middle: str
    high: str


THEMES = {
    "light": Theme(
        background="#ffffff",
        text="#1b1f24",
        muted="#5c6570",
        grid="#e3e7eb",
        clean="#00815f",
        compromised="#c14f00",
        method="#3f8fc5",
        passes="#00815f",
        modes=("#8a6a00", "#b3261e", "#7a3e9d", "#7a3e9d"),
        low="#2166a5",
        middle="#f6f7f8",
        high="#c14f00",
    ),
    "dark": Theme(
        background="#181b20",
        text="#e7eaee",
        muted="#a0a8b2",
        grid="#2d333b",
        clean="#2fc79a",
        compromised="#f58d4a",
        method="#4a9fd8",
        passes="#2fc79a",
        modes=("#e3b93c", "#ff7b72", "#c79bea", "#c79bea"),
        low="#4a9fd8",
        middle="#23282f",
        high="#f58d4a",
    ),
}
_MARKERS = dict(zip(FAILURE_MODES, ("^", "s", "D", "d"), strict=True))


def render_figures(
    leaderboard: dict[str, Any], results: Sequence[dict[str, Any]], similarity: Similarity
) -> dict[str, bytes]:
    """Returns all figures by file name: ``{name}.png`` (light) and ``{name}-dark.png``.

    Args:
      leaderboard: what :func:`salmu_jax.report.leaderboard.build_leaderboard` made of ``results``.
      results: the result files' contents, in any order.
      similarity: for each model and split the cosine of every row, float [N].
    """
    by_model = {result["model"]: result for result in results}
    ordered = [by_model[row["model"]] for row in leaderboard["rows"]]
    # A figure of which nothing was measured is left out: no leakage to remove, a released directory without attributes.
    plane = any(
        row["forgetting"] is not None and (row["genknow_kept"] is not None or row["holdouts_kept"] is not None)
        for row in leaderboard["rows"]
    )
    attributes = any(result["extra"]["by_field"] for result in ordered)
    figures = {}
    for name, theme in THEMES.items():
        suffix = "" if name == "light" else f"-{name}"
        if plane:
            figures[f"forgetting_utility{suffix}.png"] = forgetting_against_utility(leaderboard, theme)
        figures[f"similarity{suffix}.png"] = similarity_histograms(ordered, similarity, theme)
        if attributes:
            figures[f"attributes{suffix}.png"] = attribute_heat_map(ordered, theme)
    return figures


def forgetting_against_utility(leaderboard: dict[str, Any], theme: Theme) -> bytes:
    """Share of the leakage removed against what is kept: of general knowledge (left), of the holdouts (right)."""
    rows = [row for row in leaderboard["rows"] if row["forgetting"] is not None]
    limits = leaderboard["thresholds"]
    panels = [
        ("genknow_kept", "General knowledge kept", "GenKnow, as a share of Compromised's", 1),
        ("holdouts_kept", "Holdouts kept", "InterIdSim or IntraIdSim, the worse-off: 0 as Clean, 1 as Compromised", 2),
    ]
    panels = [panel for panel in panels if any(row[panel[0]] is not None for row in rows)]
    with mpl.rc_context(_style(theme)):
        figure = _figure(11.0, 5.5, theme)
        width = 0.97 / len(panels)
        for number, (key, title, subtitle, mode) in enumerate(panels):
            axes = figure.add_axes((0.045 + number * (width + 0.012), 0.185, width - 0.057, 0.7))
            axes.tick_params(length=0)
            measured = [row for row in rows if row[key] is not None]
            shares = [row[key] for row in measured]
            bottom = -0.06 if min(shares) >= -0.02 else max(min(shares), -1.0) - 0.1
            axes.set_xlim(min(-0.07, *(max(row["forgetting"], -0.5) - 0.07 for row in measured)), 1.13)
            axes.set_ylim(bottom, max(1.14, *(min(share, 1.5) + 0.1 for share in shares)))
            axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=24)
            axes.annotate(
                subtitle, (0, 1), xytext=(0, 9), xycoords="axes fraction", textcoords="offset points", color=theme.muted
            )
            axes.set_xlabel("leakage removed: 0 as Compromised, 1 as Clean (RetFail)")
            axes.grid(True, color=theme.grid, linewidth=0.7)
            axes.set_axisbelow(True)
            left = axes.get_xlim()[0]
            words = {"fontsize": 9, "style": "italic", "zorder": 1}
            shade = {"linewidth": 0, "alpha": 0.10, "zorder": 0.2}
            axes.axvspan(left, limits["forgetting"], color=theme.modes[0], **shade)
            obstacles = [axes.text(left + 0.02, bottom + 0.03, FAILURE_MODES[0], color=theme.modes[0], **words)]
            if (limit := limits[key]) is not None:
                axes.axhspan(bottom, limit, color=theme.modes[mode], **shade)
                below = {"color": theme.modes[mode], "va": "top", **words}
                obstacles.append(axes.text(left + 0.02, limit - 0.03, FAILURE_MODES[mode], **below))
            if mode == 2:
                partly = limits["holdouts_kept_partly"]
                axes.axhspan(limit, partly, color=theme.modes[3], linewidth=0, alpha=0.05, zorder=0.2)
                obstacles.append(axes.text(left + 0.02, partly - 0.03, FAILURE_MODES[3], **below))
            axes.plot(
                1, 1, marker="o", markersize=17, markerfacecolor="none", markeredgecolor=theme.muted, linestyle="none"
            )
            _mark_models(axes, measured, key, theme, obstacles)
        _scatter_legend(figure, theme)
        return _png(figure)


def _mark_models(axes, rows, key, theme, obstacles) -> None:
    """Draws the models' points and their names, the names where they cover nothing."""
    points, texts = [], []
    for row in rows:
        x = float(np.clip(row["forgetting"], *axes.get_xlim()))
        y = float(np.clip(row[key], *axes.get_ylim()))
        colour, marker = _look(row, theme)
        axes.plot(
            x,
            y,
            marker=marker,
            markersize=14 if marker == "*" else 8.5,
            color=colour,
            markeredgecolor=theme.background,
            linestyle="none",
            zorder=4,
        )
        bold = "bold" if row["role"] != "method" else "normal"
        name = "\n".join(textwrap.wrap(display_name(row["model"]), 22))
        texts.append(axes.text(x, y, name, color=colour, fontsize=9, fontweight=bold, linespacing=1.0, zorder=5))
        points.append((x, y))
    canvas = axes.figure.canvas
    renderer = canvas.get_renderer()
    extents = [text.get_window_extent(renderer) for text in texts]
    frame = axes.get_window_extent(renderer)
    bounds = Box(frame.x0 + 4, frame.y0 + 4, frame.x1 - 4, frame.y1 - 4)
    pixels = [tuple(axes.transData.transform(point)) for point in points]
    taken = [Box(*text.get_window_extent(renderer).extents) for text in obstacles]
    sizes = [(extent.width + 4, extent.height + 2) for extent in extents]
    boxes = place_labels(pixels, sizes, bounds, scale=DPI / 100, obstacles=taken)
    back = axes.transData.inverted()
    for text, box, point, pixel in zip(texts, boxes, points, pixels, strict=True):
        centre = back.transform(((box.left + box.right) / 2, (box.bottom + box.top) / 2))
        text.set_position(centre)
        text.set_horizontalalignment("center")
        text.set_verticalalignment("center")
        text.set_gid("model-label")
        end = nearest(box, pixel)
        if np.hypot(end[0] - pixel[0], end[1] - pixel[1]) > 14 * DPI / 100:
            tip = back.transform(end)
            axes.plot((point[0], tip[0]), (point[1], tip[1]), color=theme.muted, linewidth=0.7, zorder=3)


def _look(row: dict[str, Any], theme: Theme) -> tuple[str, str]:
    """Colour and marker of a model: by its role, or by its failure modes (the last of them; a cross for several)."""
    if row["role"] != "method":
        return (theme.clean if row["role"] == "clean" else theme.compromised), "o"
    failed = [mode for mode in FAILURE_MODES if mode in row["verdicts"]]
    if not failed:
        return (theme.passes, "*") if row["grade"] == PRECISE else (theme.muted, "o")
    colour = theme.modes[FAILURE_MODES.index(failed[-1])]
    return colour, _MARKERS[failed[0]] if len(failed) == 1 else "X"


def _scatter_legend(figure: Figure, theme: Theme) -> None:
    handles = [
        _handle("o", "none", "ideal", edge=theme.muted, size=11),
        _handle("o", theme.clean, "Clean"),
        _handle("o", theme.compromised, "Compromised"),
        _handle("*", theme.passes, PRECISE, size=12),
        *(_handle(_MARKERS[mode], theme.modes[i], mode) for i, mode in enumerate(FAILURE_MODES)),
        _handle("X", theme.muted, "several"),
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8.8,
        handletextpad=0.3,
        columnspacing=1.4,
    )


def _handle(marker: str, colour: str, label: str, edge: str | None = None, size: float = 7.5):
    return Line2D(
        [],
        [],
        marker=marker,
        markersize=size,
        markerfacecolor=colour,
        markeredgecolor=edge or colour,
        linestyle="none",
        label=label,
    )


def similarity_histograms(results: Sequence[dict[str, Any]], similarity: Similarity, theme: Theme) -> bytes:
    """One row a method, one column a split: the method's cosines filled, Clean's and Compromised's as outlines.

    Args:
      results: result contents in the leaderboard's order; Clean and Compromised among them.
      similarity: as in :func:`render_figures`.
    """
    names = [result["model"] for result in results]
    clean, compromised = similarity["clean"], similarity["compromised"]
    methods = [name for name in names if name not in ("clean", "compromised")] or ["compromised"]
    everything = np.concatenate([np.asarray(similarity[name][split], np.float64) for name in names for split in SPLITS])
    least, most = (float(everything.min()), float(everything.max())) if len(everything) else (0.0, 1.0)
    span = max(most - least, 1e-6)
    low, high = least - 0.02 * span, most + 0.02 * span
    edges = np.linspace(low, high, _BINS + 1)
    with mpl.rc_context(_style(theme)):
        height = 1.15 + 0.98 * len(methods)
        figure = _figure(11.0, height, theme)
        above, below = 0.62 / height, 0.53 / height
        grid = figure.add_gridspec(
            len(methods), 3, left=0.145, right=0.988, top=1 - above, bottom=below, hspace=0.16, wspace=0.05
        )
        ticks = [
            tick for tick in MaxNLocator(5).tick_values(low, high) if low + 0.06 * span < tick < high - 0.06 * span
        ]
        for i, method in enumerate(methods):
            for j, split in enumerate(SPLITS):
                axes = figure.add_subplot(grid[i, j])
                shown = [scores[split] for scores in (clean, compromised, similarity[method])]
                _histogram_panel(axes, edges, shown, theme)
                target = clean if split == "forget" else compromised
                colour = theme.clean if split == "forget" else theme.compromised
                if len(target[split]):
                    aim = float(np.mean(target[split], dtype=np.float64))
                    axes.axvline(aim, color=colour, linewidth=1.1, linestyle=(0, (3, 2)))
                axes.set_xticks(ticks)
                axes.tick_params(labelbottom=i == len(methods) - 1)
                if i == 0:
                    axes.set_title(_SPLIT_TITLES[split], fontsize=9.5, loc="left", linespacing=1.35)
                if j == 0:
                    name = "\n".join(textwrap.wrap(display_name(method), 16))
                    axes.text(
                        -0.035,
                        0.5,
                        name,
                        transform=axes.transAxes,
                        ha="right",
                        va="center",
                        fontsize=9.5,
                        fontweight="bold",
                    )
        handles = [
            _handle("s", theme.method, "the method"),
            _handle("s", "none", "Clean", edge=theme.clean),
            _handle("s", "none", "Compromised", edge=theme.compromised),
        ]
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=1,
            frameon=False,
            fontsize=8.8,
            handletextpad=0.3,
        )
        figure.text(
            0.567, 0.06 / height, "cosine similarity of image and caption", ha="center", fontsize=9.5, color=theme.muted
        )
        return _png(figure)


def _histogram_panel(axes, edges: np.ndarray, samples: Sequence[Sequence[float]], theme: Theme) -> None:
    """Clean, Compromised (outlines) and the method (filled) of one split, each as a share of its own rows."""
    clean, compromised, method = (np.histogram(values, edges)[0] / max(len(values), 1) for values in samples)
    axes.stairs(method, edges, fill=True, color=theme.method, alpha=0.75, linewidth=0)
    axes.stairs(clean, edges, color=theme.clean, linewidth=1.3)
    axes.stairs(compromised, edges, color=theme.compromised, linewidth=1.3)
    top = max(float(np.max([clean, compromised, method])), 1e-9)
    mean = (
        f"mean {float(np.mean(samples[2], dtype=np.float64)):.3f}".replace("-", "−")
        if len(samples[2])
        else "no such rows"
    )
    axes.set_ylim(0, top * 1.3)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_yticks([])
    axes.grid(True, axis="x", color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.text(
        0.012,
        0.93,
        mean,
        transform=axes.transAxes,
        va="top",
        fontsize=8.5,
        color=theme.text,
    )


def attribute_heat_map(results: Sequence[dict[str, Any]], theme: Theme) -> bytes:
    """RetFail MRR and AssocStr of every model, an attribute a column; blank where a model has no such rows."""
    fields = list(dict.fromkeys(field for result in results for field in result["extra"]["by_field"]))
    panels = (("RetFail_MRR", "RetFail MRR, lower leaks less"), ("AssocStr", "AssocStr, aim: Clean's row"))
    sequential = LinearSegmentedColormap.from_list("sequential", [theme.middle, theme.high])
    diverging = LinearSegmentedColormap.from_list("diverging", [theme.low, theme.middle, theme.high])
    with mpl.rc_context(_style(theme)):
        height = 0.92 + 0.36 * len(results)
        figure = _figure(11.0, height, theme)
        for number, (key, title) in enumerate(panels):
            left = 0.145 + number * 0.432
            axes = figure.add_axes((left, 0.12 / height, 0.412, 0.36 * len(results) / height))
            cells = [[r["extra"]["by_field"].get(field, {}).get(key) for field in fields] for r in results]
            values = np.array([[np.nan if v is None else v for v in row] for row in cells], np.float64)
            largest = max(float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0, 1e-6)
            norm = Normalize(0, largest) if key == "RetFail_MRR" else TwoSlopeNorm(0, -largest, largest)
            colours = sequential if key == "RetFail_MRR" else diverging
            axes.pcolormesh(values, cmap=colours, norm=norm, edgecolors=theme.background, linewidth=1.5)
            axes.invert_yaxis()
            for (i, j), value in np.ndenumerate(values):
                text = "–" if np.isnan(value) else _short(value, 3 if key == "RetFail_MRR" else 2)
                colour = theme.muted if np.isnan(value) else _ink(colours(norm(value)))
                axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7.8, color=colour)
            axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=8)
            axes.xaxis.tick_top()
            axes.set_xticks(
                np.arange(len(fields)) + 0.5, [f.replace("_", "\n") for f in fields], fontsize=8.3, linespacing=1.0
            )
            names = ["\n".join(textwrap.wrap(display_name(result["model"]), 18)) for result in results]
            axes.set_yticks(
                np.arange(len(results)) + 0.5, names if number == 0 else [""] * len(names), fontsize=9, linespacing=1.0
            )
            for label, result in zip(axes.get_yticklabels(), results, strict=True):
                if result["model"] in ("clean", "compromised"):
                    label.set_color(theme.clean if result["model"] == "clean" else theme.compromised)
                    label.set_fontweight("bold")
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
            axes.axhline(2, color=theme.muted, linewidth=0.8)
        return _png(figure)


def _short(value: float, digits: int) -> str:
    """Returns the value with so many digits after the point and no zero before it: what fits into a cell."""
    text = f"{value:.{digits}f}".replace("-", "−")
    return "0" if float(f"{value:.{digits}f}") == 0 else text.replace("0.", ".", 1) if abs(value) < 0.995 else text


def _ink(colour: tuple[float, ...]) -> str:
    """Black or white, whichever contrasts more with ``colour`` (WCAG 2 relative luminance)."""
    channels = np.asarray(colour[:3], np.float64)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def _style(theme: Theme) -> dict[str, Any]:
    """Returns the matplotlib settings of a theme, from the defaults: a user's matplotlibrc changes nothing."""
    own = {
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "text.color": theme.text,
        "text.parse_math": False,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.background,
        "axes.labelcolor": theme.muted,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlecolor": theme.text,
        "xtick.color": theme.grid,
        "ytick.color": theme.grid,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "figure.facecolor": theme.background,
        "savefig.facecolor": theme.background,
    }
    unset = ("backend", "backend_fallback", "interactive")
    return {key: value for key, value in mpl.rcParamsDefault.items() if key not in unset} | own


def _figure(width: float, height: float, theme: Theme) -> Figure:
    """Returns an empty figure of that many inches with a canvas of its own."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=theme.background)
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
