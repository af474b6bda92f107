"""Renders the templates of a report: Jinja2 with autoescape, so that every text of others is shown and does nothing.

Three layers keep foreign text harmless. Each value that a template prints passes through :func:`safe_text` (no control or
direction characters, no half surrogates) and is then escaped. The page's content security policy runs no script and applies
no style but the page's own, by their digests. No template puts a value into a script, a style or the address of a link, page
names aside, which :func:`salmu_jax.report.site.page_names` makes of harmless characters.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from salmu_jax.runtime.text import safe_text, safe_value

_TEXT_LIMIT = 4000  # characters of a text on a page
_MINUS = "−"


@functools.cache
def environment() -> jinja2.Environment:
    """Returns the environment of ``templates/``; an undefined name in a template is an error."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("salmu_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "decimal": decimal,
        "signed": signed,
        "percent": percent,
        "plain": plain,
        "pretty": _pretty,
        "breakable": _breakable,
        "unbroken": _unbroken,
        "label": _label,
    }
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    found.globals |= {
        "style": Markup(style),
        "light": Markup(re.sub(r"@media \(prefers-color-scheme: dark\) \{.*?\n\}\n", "", style, flags=re.DOTALL)),
        "script": Markup(script),
        "policy": (
            f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}';"
            " base-uri 'none'; form-action 'none'"
        ),
    }
    return found


def render(template: str, **values: Any) -> str:
    """Returns the text of a template; lines that hold nothing but blanks are left out."""
    text = environment().get_template(template).render(**values)
    return re.sub(r"\n[ \t]*(?=\n)", "", text)


def decimal(value: float | None, digits: int = 3) -> str:
    """Returns a number with so many digits after the point and a real minus sign; a dash for None."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", _MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """Returns a difference with its sign: ``+0.012``, ``−0.004``, and ``±0.000`` where nothing is left of it."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}"
    return f"±{text[1:]}" if float(text) == 0 else text.replace("-", _MINUS)


def percent(share: float | None, digits: int = 0) -> str:
    """Returns a share as a percentage; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}%".replace("-", _MINUS)


def plain(value: Any) -> str:
    """Returns a JSON value in a line: text as it is, an object as ``key value, key value``."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(child)}" for key, child in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "not recorded" if value is None else str(value)


def _harmless(value: Any) -> Any:
    """Makes text harmless before it is escaped; keeps our own markup."""
    return safe_text(value, _TEXT_LIMIT) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _pretty(value: Any) -> Markup:
    """Returns a JSON value as indented lines."""
    return escape(json.dumps(safe_value(value), indent=1, ensure_ascii=False, default=str))


def _breakable(title: str) -> Markup:
    """Lets a metric's title break before its last word: ``InterId`` ``Sim``."""
    parts = re.split(r"(?<=[a-z])(?=Sim|Int|Assoc|Know|Str)", safe_text(title, 64))
    return Markup("<wbr>").join(parts)


def _unbroken(text: str) -> str:
    """Returns a verdict with hyphens that do not break."""
    return safe_text(text).replace("-", "‑")


def _label(key: str) -> str:
    return safe_text(key).replace("_", " ")


def _asset(name: str) -> str:
    return resources.files("salmu_jax.report").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
