"""Writes a report: one page of all results, and one page per result, with the leaderboard as JSON beside them.

The pages ask nothing of the network and little of the browser: each has its style, its charts and its pictures in it, and the
one script only sorts and filters the table. ``render.py`` says what keeps texts of others harmless.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.report.differences import difference_intervals
from salmu_jax.report.distances import add_distances
from salmu_jax.report.gather import Entry
from salmu_jax.report.groups import add_groups
from salmu_jax.report.index_view import index_view
from salmu_jax.report.leaderboard import build_leaderboard
from salmu_jax.report.model_view import model_view
from salmu_jax.report.pictures import people_view, scenes_view
from salmu_jax.report.render import render
from salmu_jax.report.site import Site, make_site
from salmu_jax.runtime.contents import write_contents
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.files import write_json


def build_board(entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns the leaderboard of entries, with their groups: a JSON value.

    Raises InputError: a reference is missing, or the results cannot be compared.
    """
    results = [{**entry.result, "model": entry.id} for entry in entries]
    rows = {entry.id: entry.rows for entry in entries}
    return add_groups(build_leaderboard(results, rows), entries)


def write_report(
    out_dir: str | os.PathLike,
    entries: Sequence[Entry],
    samples: Sequence[dict[str, Any]] = (),
    *,
    title: str,
    run: Mapping[str, Any],
) -> tuple[Path, dict[str, Any]]:
    """Writes ``index.html``, ``models/*.html``, ``figures/*.svg`` and ``leaderboard.json`` as one atomic directory.

    The same arguments give the same bytes.

    Args:
      out_dir: the directory to make; an older report is replaced.
      entries: the results with their row scores, Clean and Compromised among them, in any order.
      samples: people as ``{subset, identity_id, name, captions, images}`` (encoded bytes; ``captions[i]`` belongs to
        ``images[i]``; a person whose facts are partly held out is given once a subset) and single retain pictures as
        ``{subset, caption, image}``.
      title: the heading of the first page.
      run: how the report was made, shown as it is. ``command`` (text), ``stages`` (seconds by stage) and ``config`` (any
        JSON value) have a place of their own; every other key is listed with its value.

    Returns the first page, and what ``leaderboard.json`` holds.

    Raises:
      InputError: the results cannot be compared, or a sample picture cannot be decoded.
      OSError: the directory cannot be written.
    """
    out_dir = Path(out_dir)
    differences = difference_intervals(entries)
    board = add_distances(build_board(entries), differences)
    site = make_site(board, entries, differences)
    pages = render_pages(site, samples, title=title, run=run)
    with new_directory(out_dir) as partial:
        write_json(partial / "leaderboard.json", board)
        for name, text in pages.items():  # flushed to the disk with the directory, all at once
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(text.encode())
        write_contents(partial, "report")
    return out_dir / "index.html", board


def render_pages(
    site: Site, samples: Sequence[dict[str, Any]], *, title: str, run: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the text of every page and figure by its file name; arguments as :func:`write_report`'s."""
    seconds = {name: max(float(value), 0.0) for name, value in (run.get("stages") or {}).items()}
    longest = max([*seconds.values(), 1e-9])
    view = index_view(site)
    pages = {
        "index.html": render(
            "index.html",
            title=title,
            view=view,
            people=people_view(samples),
            scenes=scenes_view(samples),
            run={"command": run.get("command"), "config": run.get("config")},
            others=[(name, value) for name, value in run.items() if name not in ("command", "stages", "config")],
            stages=[(name, value, value / longest) for name, value in seconds.items()],
            total=sum(seconds.values()),
        )
    }
    for panel in view["panels"]:
        pages[f"figures/{panel['key']}.svg"] = render("scatter.svg", view=view, panel=panel, own=True)
    for row in site.board["rows"]:
        pages[f"models/{site.pages[row['model']]}"] = render("model.html", title=title, view=model_view(site, row))
    return pages
