"""Reads the documents for people (README.md, CONTRIBUTING.md, docs/*.md) and the commands in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def read(name: str) -> str:
    """Returns the text of a document, such as ``docs/runs.md``."""
    return (ROOT / name).read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    """Returns what follows a heading, such as ``### A pod``, up to the next one of its level or above."""
    level = len(heading.split()[0])
    (_, text) = read(name).split(f"\n{heading}\n")
    return re.split(rf"^#{{1,{level}}} ", text, flags=re.MULTILINE)[0]


def blocks(text: str, language: str = "") -> list[str]:
    """Returns the fenced blocks of one language, without their fences."""
    found = re.findall(r"^```([a-z]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def commands(text: str, program: str = "salmu") -> list[str]:
    """Returns the lines of fenced blocks that run ``program``."""
    return [line for block in blocks(text) for line in block.splitlines() if line.startswith(f"{program} ")]


def inline_commands(text: str) -> list[str]:
    """Returns the commands of ``salmu`` in backticks within a line."""
    return re.findall(r"`(salmu [a-z]+ [^`\n]+)`", text)
