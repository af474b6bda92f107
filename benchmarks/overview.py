"""Draws the README's picture from a finished ``make bench``: portraits, and the two scatters of the page.

    python -m benchmarks.overview runs/mini docs/overview.png

Needs chromium, which draws the page's SVG files as a browser shows them.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from salmu_jax.runtime.errors import InputError

PEOPLE, PORTRAITS = 9, 2
SIDE, GAP = 138, 10
WIDTH = PEOPLE * (SIDE + GAP) + GAP
HEIGHT = 925
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHARTS = {
    "genknow_kept": ("General knowledge kept", "GenKnow, as a share of Compromised's"),
    "holdouts_kept": ("Holdouts kept", "the worse-off similarity: 0% as Clean, 100% as Compromised"),
}

STYLE = f"""
body {{ margin: 0; background: #fff; font: 15px DejaVu Sans, sans-serif; color: #444 }}
.row {{ white-space: nowrap; font-size: 0 }}
.row img {{ width: {SIDE}px; height: {SIDE}px; margin: {GAP}px 0 0 {GAP}px }}
figure {{ display: inline-block; width: 48%; margin: 16px 0 0 1.5% }}
figure img {{ width: 100%; margin-top: 8px }}
b {{ font-size: 20px; color: #111 }}
"""


def portraits(world: Path) -> list[list[bytes]]:
    """Returns ``PORTRAITS`` rows of ``PEOPLE`` images, a column a person: the first people of ``forget`` by their ids."""
    file = min((world / "data").glob("forget-*.parquet"))
    of_people: dict[str, list[bytes]] = {}
    for row in pq.read_table(file, columns=["identity_id", "image"]).to_pylist():
        of_people.setdefault(row["identity_id"], []).append(row["image"]["bytes"])
    columns = [of_people[person][:PORTRAITS] for person in sorted(of_people)[:PEOPLE]]
    return [[column[row] for column in columns] for row in range(PORTRAITS)]


def page(workdir: Path) -> str:
    """Returns the picture as HTML."""
    rows = (
        f"<div class=row>{''.join(_image('jpeg', image) for image in row)}</div>"
        for row in portraits(workdir / "world")
    )
    figures = workdir / "report" / "figures"
    charts = (
        f"<figure><b>{title}</b><br>{about}{_image('svg+xml', (figures / f'{name}.svg').read_bytes())}</figure>"
        for name, (title, about) in CHARTS.items()
    )
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{''.join(rows)}{''.join(charts)}"


def _image(kind: str, content: bytes) -> str:
    return f"<img src='data:image/{kind};base64,{base64.b64encode(content).decode()}'>"


def draw(workdir: Path, output: Path) -> None:
    """Writes the picture. Raises InputError without chromium, or if ``workdir`` has no finished run."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise InputError(f"none of {', '.join(BROWSERS)} is installed; one draws the picture")
    if not (workdir / "report" / "figures").is_dir():
        raise InputError("has no report; 'salmu bench' writes one", workdir)
    with tempfile.TemporaryDirectory() as temporary:
        source, shot = Path(temporary) / "page.html", Path(temporary) / "shot.png"
        source.write_text(page(workdir), encoding="utf-8")
        size = f"--window-size={WIDTH},{HEIGHT}"
        flags = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", size]
        subprocess.run([browser, *flags, f"--screenshot={shot}", source.as_uri()], check=True, capture_output=True)
        with Image.open(shot) as image:
            # 256 colours are enough for flat charts, and a third of the bytes.
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(output, optimize=True)


def main(arguments: list[str] | None = None) -> int:
    """Draws, or says in a line why not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overview", description=__doc__)
    parser.add_argument("workdir", type=Path, help="of a finished 'make bench'")
    parser.add_argument("output", type=Path, help="the PNG file")
    options = parser.parse_args(arguments)
    try:
        draw(options.workdir, options.output)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
