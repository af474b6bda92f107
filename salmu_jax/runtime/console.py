"""Prints to standard streams that may be closed, full, ASCII only, or a pipe without a reader.

The outputs of a run are its files. A run must not fail because of what it prints on the way.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from typing import TextIO

_PLAIN = {
    "±": "+-",
    "×": "x",
    "·": ".",
    "–": "-",
    "—": "-",
    "…": "...",
    "↑": "^",
    "↓": "v",
    "→": "->",
    "“": '"',
    "”": '"',
}
_ERRORS = "salmu.plain"


def say(line: str, stream: TextIO | None = None) -> None:
    """Prints a line on standard output, or ``stream``, replacing characters that its encoding lacks."""
    stream = sys.stdout if stream is None else stream
    if stream is None:  # closed when Python started
        return
    try:
        print(line, file=stream, flush=True)
    except UnicodeEncodeError:
        print(
            line.encode(stream.encoding or "ascii", _ERRORS).decode(stream.encoding or "ascii"), file=stream, flush=True
        )


class _Lossy(io.FileIO):
    """Wraps a file descriptor, and records its write errors instead of raising them."""

    lost: OSError | None = None
    quiet = False

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.lost is None and not self.quiet and self.fileno() == 1 and error.errno != errno.EPIPE:
                complain(
                    f"salmu: standard output: {error.strerror}; the run continues, and its output files are not affected"
                )
            self.lost = self.lost or error
            return len(data)


def prepare(*, quiet: bool = False) -> None:
    """Makes the program's three standard streams safe; call it first. With ``quiet``, the parent reports lost output.

    Closed descriptors become the null device. Otherwise the next file to be opened would get their number, and whatever a
    library prints would end up in that file.
    """
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != descriptor:
                os.dup2(opened, descriptor, inheritable=True)
                os.close(opened)
            else:
                os.set_inheritable(opened, True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        raw = _Lossy(descriptor, "w", closefd=False)
        raw.quiet = quiet
        lines = raw.isatty() or name == "stderr"
        wrapped = io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors=_ERRORS, line_buffering=lines)
        setattr(sys, name, wrapped)


def complain(line: str) -> None:
    """Prints a line on standard error, if possible."""
    with contextlib.suppress(OSError, ValueError):
        say(line, sys.stderr or io.StringIO())


def flushed() -> bool:
    """Returns False if output was lost, except on a pipe whose reader has gone."""
    if sys.stdout is None:
        return True
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    lost = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "lost", None)
    return lost is None or lost.errno == errno.EPIPE


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replaces characters that a stream cannot encode with ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character) or ascii(character)[1:-1] for character in text), error.end


codecs.register_error(_ERRORS, _plain)
