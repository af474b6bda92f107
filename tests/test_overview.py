"""The README's picture: drawn from a work directory by a real browser, or a line that says why not."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import overview

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 8"><rect width="10" height="8" fill="#{}"/></svg>'


@pytest.fixture
def workdir(tmp_path):
    """Nine people of two portraits each, the shade of a portrait being its person; a red chart and a blue one."""
    rows = []
    for person in reversed(range(overview.PEOPLE)):
        for _ in range(overview.PORTRAITS):
            written = io.BytesIO()
            Image.new("RGB", (64, 64), (25 * person, 0, 0)).save(written, "JPEG")
            rows.append({"identity_id": f"{person:03}", "image": {"bytes": written.getvalue(), "path": "x.jpg"}})
    (tmp_path / "world" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "world" / "data" / "forget-00000-of-00001.parquet")
    figures = tmp_path / "report" / "figures"
    figures.mkdir(parents=True)
    for name, colour in zip(overview.CHARTS, ("ff0000", "0000ff"), strict=True):
        (figures / f"{name}.svg").write_text(SVG.format(colour))
    return tmp_path


@pytest.mark.usefixtures("browser")  # which skips, and says why, where there is none
def test_portraits_stand_by_person_above_both_charts(workdir):
    assert overview.main([str(workdir), str(workdir / "drawn.png")]) == 0
    with Image.open(workdir / "drawn.png") as image:
        assert image.size == (overview.WIDTH, overview.HEIGHT)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    step = overview.SIDE + overview.GAP
    shades = pixels[step // 2 : 2 * step : step, step // 2 :: step, 0][:, : overview.PEOPLE]
    np.testing.assert_allclose(shades, 25 * np.arange(overview.PEOPLE)[None].repeat(2, 0), atol=6)
    for third, colour in ((1, (255, 0, 0)), (3, (0, 0, 255))):
        np.testing.assert_allclose(pixels[600, third * overview.WIDTH // 4], colour, atol=2)


def test_what_is_missing_is_said_in_a_line(workdir, capsys, monkeypatch):
    shutil.rmtree(workdir / "report")
    monkeypatch.setattr(overview.shutil, "which", lambda name: "/bin/true")
    assert overview.main([str(workdir), str(workdir / "drawn.png")]) == 2
    assert "has no report; 'salmu bench' writes one" in capsys.readouterr().err
    monkeypatch.setattr(overview.shutil, "which", lambda name: None)
    assert overview.main([str(workdir), str(workdir / "drawn.png")]) == 2
    assert "chromium" in capsys.readouterr().err
    assert not (workdir / "drawn.png").exists()
