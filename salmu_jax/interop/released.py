"""Lists the published foundation models, fetches them from the hub, and recognises their files."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import first_line


@dataclasses.dataclass(frozen=True)
class Published:
    """A published model: a raw OpenCLIP state dict of ViT-B-16 (exact GELU), which has no config beside it."""

    name: str
    repository: str
    file: str
    sha256: str
    architecture: str = "ViT-B-16"


MODELS = (
    Published(
        "salmu-clean",
        "cvc-mmu/clip-vit-b-16-salmu-clean",
        "open_clip_model.safetensors",
        "ff944079f8f5043bf5d90c8e2490fa248d4693c33cdbd80f91c6ceb798f66dfe",
    ),
    Published(
        "salmu-compromised",
        "cvc-mmu/clip-vit-b-16-salmu-compromised",
        "open_clip_pytorch_model.bin",
        "c48f390a39450196f0ddd958b250017e0716f7818d03d0ce6f69042204565466",
    ),
)


def by_name(name: str) -> Published | None:
    """Returns the published model of that short or full name; None if there is none."""
    return next((model for model in MODELS if name in (model.name, model.repository)), None)


def by_digest(sha256: str) -> Published | None:
    """Returns the published model whose file has this SHA-256, whatever the file is called."""
    return next((model for model in MODELS if model.sha256 == sha256), None)


def names() -> str:
    """Returns all names, for a message."""
    return ", ".join([*(model.name for model in MODELS), *(model.repository for model in MODELS)])


def fetch(model: Published, revision: str | None) -> Path:
    """Returns the local file of a published model, downloaded at ``revision`` by huggingface_hub (which keeps it).

    Raises InputError without a pinned revision, without huggingface_hub, or if the download fails (the repositories are
    gated); the message says which file to download by hand.
    """
    by_hand = f"or download {model.file} of {model.repository} and give its path"
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise InputError(f"from the hub with --revision and the 40 digits of a commit only; {by_hand}", model.name)
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"huggingface_hub is not installed ('pip install huggingface_hub'), {by_hand}", model.name
        ) from None
    try:
        return Path(huggingface_hub.hf_hub_download(model.repository, model.file, revision=revision))
    except Exception as error:  # of a dozen types: no network, no access, no such commit
        raise InputError(f"the hub does not give it ({first_line(error)}); log in, {by_hand}", model.name) from error
