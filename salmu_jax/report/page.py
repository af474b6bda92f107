"""The report as one self-contained HTML page, with the figures and the leaderboard beside it.

The page asks nothing of the network and little of the browser: pictures are data URIs, the style is inline, and the one
script only makes the table sortable. Every text that comes from a result, a caption or a config is escaped; should that
ever fail, the page's content security policy still runs no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import os
import re
import string
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from salmu_jax.evaluation.rows import RowScores
from salmu_jax.evaluation.verdicts import FAILURE_MODES, PRECISE, definition
from salmu_jax.report.figures import Similarity, render_figures
from salmu_jax.report.findings import findings
from salmu_jax.report.leaderboard import build_leaderboard, display_name
from salmu_jax.report.pictures import data_uri, people_html, scenes_html
from salmu_jax.report.table import describe_measurement
from salmu_jax.runtime.contents import write_contents
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.files import write_bytes, write_json, write_text
from salmu_jax.runtime.text import safe_text, safe_value

_TEXT_LIMIT = 4000  # characters of a text on the page

_FIGURES = (
    (
        "forgetting_utility",
        "Forgetting against utility",
        "To the right, more of the leakage is gone; upwards, more of the rest is left. The ring marks the ideal: "
        "everything asked for is forgotten, and nothing else. The shaded regions are those of the failure modes. A "
        "method in the upper right corner on the left panel but low on the right one forgets what it should have kept. "
        "Clean itself is low there: it never learnt the holdouts.",
    ),
    (
        "similarity",
        "What moved",
        "Similarity of each image with its own caption, one row a method. The filled area should lie on the green "
        "outline (Clean) in the first column, and on the orange one (Compromised) in the other two; the dashed line is "
        "the mean to aim at. Where all three columns move together, the method has not told what to forget from what "
        "to keep.",
    ),
    (
        "attributes",
        "By attribute",
        "Retrieval and similarity on forget, for each kind of fact. An even row means that a method treats all kinds "
        "alike; a mean can hide a kind that still leaks.",
    ),
)


def write_report(
    out_dir: str | os.PathLike,
    results: Sequence[dict[str, Any]],
    similarity: Similarity,
    samples: Sequence[dict[str, Any]],
    *,
    title: str,
    run: dict[str, Any],
    rows: Mapping[str, RowScores] | None = None,
) -> Path:
    """Writes ``leaderboard.json``, ``figures/*.png`` and ``index.html`` as one atomic directory; returns the page.

    The same arguments give the same bytes.

    Args:
      out_dir: the directory to make; an older one is replaced.
      results: contents of the result files, Clean and Compromised among them.
      similarity: for each model and split the cosine of every row, from the row scores.
      samples: people as ``{subset, identity_id, name, captions, images}`` (encoded bytes; ``captions[i]`` belongs to
        ``images[i]``; a person whose facts are partly held out is given once a subset) and single retain pictures as
        ``{subset, caption, image}``.
      title: the page's heading.
      run: how the run was made, shown as it is. ``command`` (text), ``stages`` (seconds by stage) and ``config`` (any
        JSON value) have a place of their own; every other key is listed with its value.
      rows: the row scores of each model (:func:`build_leaderboard`).

    Raises:
      InputError: the results cannot be compared, or a sample picture cannot be decoded.
      OSError: the directory cannot be written.
    """
    out_dir = Path(out_dir)
    leaderboard = build_leaderboard(results, rows)
    figures = render_figures(leaderboard, results, similarity)
    page = render_page(leaderboard, figures, samples, title=title, run=run)
    with new_directory(out_dir) as partial:
        write_json(partial / "leaderboard.json", leaderboard)
        for name, data in figures.items():
            write_bytes(partial / "figures" / name, data)
        write_text(partial / "index.html", page)
        write_contents(partial, "report")
    return out_dir / "index.html"


def render_page(
    leaderboard: dict[str, Any],
    figures: dict[str, bytes],
    samples: Sequence[dict[str, Any]],
    *,
    title: str,
    run: dict[str, Any],
) -> str:
    """Returns the HTML of the page; arguments as :func:`write_report`'s, figures as :func:`render_figures` returns them."""
    package = resources.files("salmu_jax.report")
    template = package.joinpath("template.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() if script else ""
    foreign = [caveat for caveat in leaderboard["caveats"] if "not the paper" in caveat.lower()]
    notice = "".join(f"<p>{_escape(caveat)}</p>" for caveat in foreign)
    pictures = people_html(samples) + "\n" + scenes_html(samples)
    if pictures.strip():
        pictures = (
            "<section aria-labelledby='people'><h2 id='people'>Who is to be forgotten</h2>"
            "<p>Some pairs of image and caption as the models see them. The people of SALMUBench are invented.</p>"
            f"{pictures}</section>"
        )
    return string.Template(template).substitute(
        title=_escape(title),
        style=package.joinpath("report.css").read_text(encoding="utf-8"),
        script_digest=digest,
        notice=f"<div class='notice' role='note'>{notice}</div>" if notice else "",
        findings="".join(f"<li>{_escape(sentence)}</li>" for sentence in findings(leaderboard)),
        table=_table(leaderboard),
        modes="".join(
            f"<div><dt>{_chip(mode)}</dt><dd>{_escape(definition(mode))}</dd></div>" for mode in FAILURE_MODES
        ),
        verdicts=_verdicts(leaderboard),
        figures="".join(_figure(figures, leaderboard, *figure) for figure in _FIGURES),
        samples=pictures,
        measured=_measured(leaderboard, run),
        caveats="".join(f"<li>{_escape(caveat)}</li>" for caveat in leaderboard["caveats"])
        or "<li>None recorded.</li>",
    )


def _table(leaderboard: dict[str, Any]) -> str:
    metrics = leaderboard["metrics"]
    targets = [metric["target"] for metric in metrics]
    first = targets.index("compromised")
    heads = []
    for index, metric in enumerate(metrics):
        edge = " class='first'" if index in (0, first) else ""
        heads.append(
            f"<th scope='col'{edge} data-sort='number' title='{_escape(metric['description'])}'>"
            f"{re.sub(r'(?<=[a-z])(?=Sim|Int|Assoc|Know)', '<wbr>', _escape(metric['title']))}</th>"
        )
    rows = leaderboard["rows"]
    reference = {row["role"]: row["metrics"] for row in rows[:2]}
    body = ["".join(_table_row(row, leaderboard, reference, first) for row in part) for part in (rows[:2], rows[2:])]
    return (
        "<div class='scroll' tabindex='0' role='region' aria-label='Leaderboard'><table class='leaderboard'><thead>"
        f"<tr><td></td><th colspan='{first}' class='first' scope='colgroup'>Forgetting efficacy &rarr; Clean</th>"
        f"<th colspan='{len(metrics) - first}' class='first' scope='colgroup'>Utility &rarr; Compromised</th>"
        "<td></td></tr>"
        f"<tr><th scope='col' class='name' data-sort='text'>Model</th>{''.join(heads)}"
        "<th scope='col' class='verdict first'>Verdict</th></tr></thead>"
        f"<tbody class='pinned'>{body[0]}</tbody><tbody>{body[1]}</tbody></table></div>"
        "<p class='note'>Forgetting efficacy should reach Clean's value, utility should stay at Compromised's. The bar "
        "under a figure is its distance from that target: empty where it is reached, full where it is as far off as "
        "Compromised (efficacy) or where everything is lost (utility). Small figures are 95% intervals over identities."
        "</p>"
        f"<p class='note'>Measured on {_escape(describe_measurement(leaderboard))}.</p>"
        "<details class='note'><summary>The order of the rows</summary>"
        f"<p>{_escape(leaderboard['ordering'])}</p></details>"
    )


def _table_row(row: dict[str, Any], leaderboard: dict[str, Any], reference: dict[str, dict], first: int) -> str:
    cells = []
    for index, metric in enumerate(leaderboard["metrics"]):
        key, value = metric["key"], row["metrics"][metric["key"]]
        off = None if row["role"] != "method" else _off_target(value, key, metric["target"], reference)
        style = "" if off is None else f" style='--off:{off:.3f}'"
        edge = " class='first'" if index in (0, first) else ""
        interval = row["intervals"].get(key)
        digits = 3 if key == "RetFail_MRR" else 2
        small = f"<small>{_decimal(interval[0], digits)}..{_decimal(interval[1], digits)}</small>" if interval else ""
        cells.append(
            f"<td{edge}{style} data-value='{'' if value is None else repr(value)}'>"
            f"{_decimal(value, 4 if key == 'RetFail_MRR' else 3)}{small}</td>"
        )
    if row["role"] == "method":
        verdict = _chips(row)
    else:
        verdict = f"<span class='target'>the target of {'forgetting' if row['role'] == 'clean' else 'utility'}</span>"
    name = _escape(display_name(row["model"]))
    return (
        f"<tr class='{row['role']}'><th scope='row' data-value='{name}'>{name}</th>{''.join(cells)}"
        f"<td class='verdict first'>{verdict}</td></tr>"
    )


def _off_target(value: float | None, key: str, target: str, reference: dict[str, dict]) -> float | None:
    """Distance to the target, 0 to 1, of the two references' distance (efficacy) or of the target itself (utility)."""
    aim = reference[target][key]
    other = reference["compromised"][key]
    if value is None or aim is None or other is None:
        return None
    whole = abs(other - aim) if target == "clean" else abs(aim)
    return min(abs(value - aim) / whole, 1.0) if whole else float(value != aim)


def _chips(row: dict[str, Any]) -> str:
    """Returns the verdicts of a method, each with its reason on hovering or focus; without, where the row has no reasons."""
    return " ".join(_chip(*pair) for pair in itertools.zip_longest(row["verdicts"], row["reasons"], fillvalue=""))


def _chip(verdict: str, tip: str = "") -> str:
    style = f"mode{FAILURE_MODES.index(verdict)}" if verdict in FAILURE_MODES else "open"
    style = "good" if verdict == PRECISE else style
    hint = f" tabindex='0' data-tip='{_escape(tip)}'" if tip else ""
    # A hyphen that does not break keeps a chip in one piece.
    return f"<span class='chip {style}'{hint}>{_escape(verdict).replace('-', '&#8209;')}</span>"


def _verdicts(leaderboard: dict[str, Any]) -> str:
    items = []
    for row in leaderboard["rows"]:
        if row["role"] == "method":
            pairs = itertools.zip_longest(row["verdicts"], row["reasons"], fillvalue="")
            lines = "".join(f"<p>{_chip(verdict)} {_escape(reason)}</p>" for verdict, reason in pairs)
            items.append(f"<div><dt>{_escape(display_name(row['model']))}</dt><dd>{lines}</dd></div>")
    return f"<dl class='reasons'>{''.join(items)}</dl>" if items else "<p>No method was evaluated.</p>"


def _figure(figures: dict[str, bytes], leaderboard: dict[str, Any], name: str, title: str, caption: str) -> str:
    if f"{name}.png" not in figures:
        return ""
    width, height = _png_size(figures[f"{name}.png"])
    models = ", ".join(display_name(row["model"]) for row in leaderboard["rows"])
    light, dark = (data_uri(figures[f"{name}{suffix}.png"], "image/png") for suffix in ("", "-dark"))
    return (
        f"<figure class='figure'><h3>{title}</h3><div class='scroll' tabindex='0' role='region' aria-label='{title}'>"
        f"<picture><source media='(prefers-color-scheme: dark)' srcset='{dark}'>"
        f"<img src='{light}' width='{width}' height='{height}' alt='{title}: a chart of {_escape(models)}. "
        "What it shows is in the table above, in leaderboard.json and in the result files.'></picture></div>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the IHDR chunk, which comes first."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _measured(leaderboard: dict[str, Any], run: dict[str, Any]) -> str:
    parts = []
    if run.get("command"):
        parts.append(f"<pre><code>{_escape(run['command'])}</code></pre>")
    facts = {key: value for key, value in run.items() if key not in ("command", "stages", "config")}
    measured = leaderboard["measured_on"]
    facts = {"device": measured["device"], "versions": measured["versions"], **measured["data"]} | facts
    facts |= {f"protocol: {key}": value for key, value in measured["protocol"].items()}
    items = "".join(
        f"<dt>{_escape(key.replace('_', ' '))}</dt><dd>{_escape(_plain(value))}</dd>" for key, value in facts.items()
    )
    parts.append(f"<dl class='facts'>{items}</dl>")
    stages = run.get("stages") or {}
    if stages:
        longest = max([float(seconds) for seconds in stages.values()] + [1e-9])
        rows = "".join(
            f"<tr><th scope='row'>{_escape(name)}</th><td>{float(seconds):.1f} s</td>"
            f"<td><i style='--part:{max(float(seconds), 0) / longest:.3f}'></i></td></tr>"
            for name, seconds in stages.items()
        )
        total = sum(float(seconds) for seconds in stages.values())
        parts.append(
            f"<table class='stages'><caption>Time of every stage ({total:.0f} s in all)</caption>{rows}</table>"
        )
    rows = "".join(
        f"<tr><th scope='row'>{_escape(display_name(row['model']))}</th>"
        f"<td><code>{_escape(_digest(row['provenance'].get('checkpoint')))}</code></td></tr>"
        for row in leaderboard["rows"]
    )
    parts.append(
        "<div class='overflow'><table class='digests'><caption>What was evaluated</caption><thead>"
        f"<tr><th scope='col'>Model</th><th scope='col'>Checkpoint</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
    if run.get("config"):
        text = json.dumps(safe_value(run["config"]), indent=1, ensure_ascii=False, default=str)
        text = html.escape(text, quote=True)  # its lines are ours
        parts.append(f"<details><summary>Config</summary><pre><code>{text}</code></pre></details>")
    return "\n".join(parts)


def _digest(checkpoint: Any) -> str:
    """Returns the digest of a checkpoint's record, or the record itself where it names none."""
    if isinstance(checkpoint, dict):
        return next((str(value) for key, value in checkpoint.items() if "digest" in key), _plain(checkpoint))
    return _plain(checkpoint)


def _plain(value: Any) -> str:
    """Returns a JSON value in a line: text as it is, an object as ``key value, key value``."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(child)}" for key, child in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(child) for child in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "(not recorded)" if value is None else str(value)


def _decimal(value: float | None, digits: int) -> str:
    return "&ndash;" if value is None else f"{value:.{digits}f}".replace("-", "&minus;")


def _escape(text: Any) -> str:
    """Any text of others as HTML that shows it and does nothing."""
    return html.escape(safe_text(text, _TEXT_LIMIT), quote=True)
