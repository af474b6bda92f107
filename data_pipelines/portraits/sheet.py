"""Makes a contact sheet: a row an identity, a column a portrait, so that a person can compare them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from PIL import Image

GAP = 4  # px between pictures


def contact_sheet(rows: Iterable[Sequence[bytes]], columns: int, *, side: int = 224) -> bytes:
    """Returns a PNG of encoded pictures, each fitted into a square of ``side`` px.

    Args:
      rows: the pictures of each identity; those beyond ``columns`` are left out.
      columns: pictures a row, 1 or more.
      side: px, 16 to 224.

    Raises ValueError for a size out of range, and if there are no rows.
    """
    if columns < 1 or not 16 <= side <= 224:
        raise ValueError(f"{columns} columns of {side} px; 1 or more columns of 16 to 224 px would be right")
    shown = [list(row)[:columns] for row in rows]
    if not shown:
        raise ValueError("there are no rows")
    step = side + GAP
    sheet = Image.new("RGB", (columns * step + GAP, len(shown) * step + GAP), (250, 250, 250))
    for line, row in enumerate(shown):
        for column, data in enumerate(row):
            with Image.open(io.BytesIO(data)) as opened:
                opened.draft("RGB", (2 * side, 2 * side))
                picture = opened.convert("RGB")
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
            left = GAP + column * step + (side - picture.width) // 2
            sheet.paste(picture, (left, GAP + line * step + (side - picture.height) // 2))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
