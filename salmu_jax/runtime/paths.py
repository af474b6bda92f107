"""Checks paths that a user gives: in options, in fields of the config, in environment variables.

A shell expands ``~`` only at the beginning of a word; an unset variable is an empty path, which would be taken for the current
directory; and ``gs://bucket``, given to the file system, makes a directory ``gs:``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from salmu_jax.runtime.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)(.*)", re.DOTALL)
_STORES = ("gs", "gcs", "s3", "s3a", "hf", "http", "https", "ftp", "hdfs", "az", "abfs", "abfss", "wandb", "memory")


def local_path(text: str | os.PathLike, where: str) -> Path:
    """Returns a path of this machine's file system.

    ``~`` and ``~user`` are expanded, and ``file:///DIRECTORY`` is taken as the directory. Names that are not UTF-8 are kept.

    Args:
      text: the path as given.
      where: the option or field that it was given in.

    Raises:
      InputError: it is empty, has a control character, or is the URL of something that is not a local path.
    """
    text = _checked(os.fspath(text), where)
    scheme = _scheme(text)[0]
    if scheme == "file":
        return _file_url(text, where)
    if scheme:
        known = scheme in _STORES
        raise InputError(
            f"is {text!r}; a directory or file of this machine is needed here"
            + (", so copy or mount it first" if known else f" (write ./{text} if it is one)"),
            where,
        )
    return Path(text)


def model_path(text: str | os.PathLike, where: str) -> Path:
    """Returns a :func:`local_path` for models or checkpoints. Also raises InputError for a path that is not UTF-8.

    TensorStore, which stores arrays, would write to a directory with another name.
    """
    path = local_path(text, where)
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"is {str(path)!r}, or lies in a directory whose name is not UTF-8, and models cannot be stored there; choose"
            " another one, or a link to it",
            where,
        ) from None
    return path


def storage_path(text: str, where: str) -> str:
    """Returns a local directory, or a bucket's address ``gs://BUCKET/PATH`` or ``s3://BUCKET/PATH``, as text.

    ``gcs://`` and ``s3a://``, as other programs write them, become ``gs://`` and ``s3://``.

    Raises InputError as :func:`model_path` does, and for an address that names no bucket.
    """
    text = _checked(text, where)
    scheme, slashes, rest = _scheme(text)
    scheme = {"gcs": "gs", "s3a": "s3"}.get(scheme, scheme)
    if scheme not in ("gs", "s3"):
        return str(model_path(text, where))
    if slashes != "//" or not rest.strip("/"):
        bucket = rest.strip("/") or "BUCKET/PATH"
        raise InputError(f"is {text!r}; a bucket is written {scheme}://{bucket}", where)
    return f"{scheme}://{rest}"


def _checked(text: str, where: str) -> str:
    if not text.strip():
        raise InputError("is empty, and a path is needed (a shell variable that is not set?)", where)
    bad = sorted({character for character in text if ord(character) < 32 or ord(character) == 127})
    if bad:
        raise InputError(f"is {text!r}; control characters ({', '.join(map(repr, bad))}) are in no path", where)
    if text.startswith("~"):
        expanded = os.path.expanduser(text)
        if expanded == text and not os.path.exists(text):
            raise InputError(f"is {text!r}, and there is no such home directory; write ./{text} for that name", where)
        text = expanded
    return text


def _scheme(text: str) -> tuple[str, str, str]:
    """``gs://a/b`` -> ``("gs", "//", "a/b")``; an empty scheme for anything else (``run:1``, ``./gs:/x``)."""
    match = _SCHEME.fullmatch(text)
    if match is None or not (match[2] or match[1].lower() in (*_STORES, "file")):
        return "", "", text
    return match[1].lower(), match[2], match[3]


def _file_url(text: str, where: str) -> Path:
    parts = urlsplit(text)
    path = unquote(parts.path, errors="surrogateescape")
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or not path.strip("/"):
        raise InputError(f"is {text!r}; a directory is written /DIRECTORY or file:///DIRECTORY", where)
    return Path(_checked(path, where))
