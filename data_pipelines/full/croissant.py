"""Describes a data set as Croissant 1.0 JSON-LD: its files with sizes and digests, and a record set for each split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME = "croissant.json"

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_COLUMNS = {
    "image": ("sc:ImageObject", "The encoded picture."),
    "text": ("sc:Text", "The caption."),
    "identity_id": ("sc:Text", "The person, a key of identities_metadata.json; null if nobody in particular."),
    "file_name": ("sc:Text", "The picture's name, unique over all splits."),
}
_FORMATS = {
    ".parquet": "application/x-parquet",
    ".json": "application/json",
    ".png": "image/png",
    ".md": "text/markdown",
    ".tar": "application/x-tar",
    ".txt": "text/plain",
}


def describe(
    *,
    name: str,
    description: str,
    licence: str,
    version: str,
    splits: Mapping[str, str],
    files: Mapping[str, tuple[int, str]],
    about: Mapping[str, str],
) -> dict[str, Any]:
    """Returns the description as a JSON value.

    Args:
      name, description, licence, version: of the data set; ``licence`` is a URL.
      splits: {split: what it is}; its files are ``data/SPLIT-*.parquet``.
      files: {path in the data set: (bytes, SHA-256)}.
      about: further properties of Croissant's vocabulary, such as ``dataBiases``.
    """
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": description,
        "license": licence,
        "url": "https://arxiv.org/abs/2603.26316",
        "version": version,
        "isLiveDataset": False,
        **about,
        "distribution": [*(_file(path, *facts) for path, facts in files.items()), *map(_file_set, splits)],
        "recordSet": [_record_set(split, what) for split, what in splits.items()],
    }


def _file(path: str, size: int, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{size} B",
        "encodingFormat": next(kind for ending, kind in _FORMATS.items() if path.endswith(ending)),
        "sha256": sha256,
    }


def _file_set(split: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{split}-files",
        "name": f"{split}-files",
        "description": f"The parquet files of {split}, in order.",
        "encodingFormat": _FORMATS[".parquet"],
        "includes": f"data/{split}-*.parquet",
    }


def _record_set(split: str, what: str) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": what,
        "key": {"@id": f"{split}/file_name"},
        "field": [_field(split, column, *facts) for column, facts in _COLUMNS.items()],
    }


def _field(split: str, column: str, kind: str, what: str) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": column}}
    if column == "image":
        source["transform"] = {"jsonPath": "bytes"}
    return {
        "@type": "cr:Field",
        "@id": f"{split}/{column}",
        "name": column,
        "description": what,
        "dataType": kind,
        "source": source,
    }
