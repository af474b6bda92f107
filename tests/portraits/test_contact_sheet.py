"""A contact sheet shows each identity in a row."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from data_pipelines.portraits.sheet import contact_sheet


def jpeg(colour: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_rows_are_identities_and_columns_portraits():
    red, blue = jpeg((255, 0, 0), (100, 50)), jpeg((0, 0, 255), (30, 60))
    sheet = Image.open(io.BytesIO(contact_sheet([[red, blue, red], [blue]], 2, side=64)))
    assert sheet.format == "PNG"
    assert sheet.size == (2 * 68 + 4, 2 * 68 + 4)
    centres = [(36, 36), (104, 36), (36, 104), (104, 104)]
    assert [sheet.getpixel(at) for at in centres] == [(255, 0, 0), (0, 0, 255), (0, 0, 255), (250, 250, 250)]


@pytest.mark.parametrize(("rows", "columns", "side"), [([[]], 0, 64), ([[]], 1, 225), ([], 1, 64)])
def test_sizes_out_of_range_are_refused(rows, columns, side):
    with pytest.raises(ValueError, match=r"would be right|no rows"):
        contact_sheet(rows, columns, side=side)
