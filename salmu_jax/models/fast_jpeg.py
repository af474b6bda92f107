"""Decodes and resizes JPEGs for training crops, in half of PIL's time and nearly to the same pixels.

PIL is the reference, and does all that is refused here: other formats, CMYK, damaged and very large files. What is refused
depends on the file alone, and the results of both libraries are the same on all processors. On Linux on Arm, for which
cykooz_resizer has no wheel, PIL does everything; the versions in a run's record show it.

- *Decoding* with simplejpeg gives exactly PIL's pixels: both use libjpeg-turbo with its accurate DCT and fancy upsampling. It
  saves the conversion to PIL's four bytes a pixel, and back. No decoder is much faster: the rest is libjpeg-turbo's time.
  (Its scaled decoding, PIL's ``draft``, gives other pixels. A crop of 90 % leaves next to nothing to skip.)
- *Resizing* with cykooz_resizer (the Rust crate fast_image_resize) takes a third of PIL's time. Both resize in one direction,
  round to 8 bits, and then resize in the other; which comes first shows. So it is called once for each, in PIL's order.
  Coefficients have 16 bits where PIL's have 22: about 4 values in 1,000 differ by one; in a million of noise, one by two.
  (Enlarging, which would make these errors larger, is left to PIL.)

Both release the GIL. ``python -m benchmarks.loader --decoders`` measures them.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from PIL import Image

try:
    import cykooz_resizer
    import simplejpeg
except ImportError:  # no wheel for this platform
    cykooz_resizer = simplejpeg = None

AVAILABLE = simplejpeg is not None
MAX_PIXELS = 8_000_000  # larger ones are left to PIL, where only a few are decoded at a time

_LIKE_PIL = ("YCbCr", "Gray")  # colour spaces; simplejpeg has another formula for CMYK
_OWN = threading.local()  # a resizer keeps buffers, which threads cannot share


def decode(data: bytes) -> np.ndarray | None:
    """Decodes a JPEG. EXIF orientation is not applied.

    Args:
      data: an encoded image of any format.

    Returns:
      uint8 ``[H, W, 3]``, grey as three equal channels; or None if PIL has to decode it: no JPEG, another colour space than
      YCbCr and grey, more than :data:`MAX_PIXELS`, or anything about it that libjpeg as much as warns of.
    """
    if not AVAILABLE or not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in _LIKE_PIL or height * width > MAX_PIXELS:
            return None
        return simplejpeg.decode_jpeg(data)
    except ValueError:  # libjpeg's errors and, as ``strict`` is the default, its warnings
        return None


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes as PIL's ``BICUBIC`` does: Keys' cubic with a = -1/2, widened for antialiasing where it makes smaller.

    Args:
      pixels: uint8 ``[H, W, 3]``.
      height, width: of the result, in pixels.

    Returns:
      uint8 ``[height, width, 3]``.
    """
    rows, columns = pixels.shape[:2]
    if height > rows or width > columns:
        return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    kind, options = cykooz_resizer.PixelType.U8x3, _options()
    # The order of Pillow 13: vertically first where the height loses more than twice as many pixels as the width.
    vertically_first = rows - height > max(2 * (columns - width), 0)
    image = cykooz_resizer.ImageData(columns, rows, kind, pixels.tobytes())
    for size in ((columns, height) if vertically_first else (width, rows), (width, height)):
        if (image.width, image.height) != size:
            resized = cykooz_resizer.ImageData(*size, kind)
            _OWN.resizer.resize(image, resized, options)
            image = resized
    return np.frombuffer(image.get_buffer(), np.uint8).reshape(height, width, 3).copy()


def _options() -> Any:
    """Returns this thread's options, and makes its resizer."""
    if not hasattr(_OWN, "resizer"):
        cubic = cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.catmull_rom)
        _OWN.resizer, _OWN.options = cykooz_resizer.Resizer(), cykooz_resizer.ResizeOptions(resize_alg=cubic)
    return _OWN.options
