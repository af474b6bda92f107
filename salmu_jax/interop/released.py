"""The published foundation models, by name: which file of which repository, and how it gets here."""

from __future__ import annotations

import re
from pathlib import Path

from salmu_jax.errors import InputError

# Both are raw OpenCLIP state dicts of ViT-B-16.
REPOSITORIES = {
    "cvc-mmu/clip-vit-b-16-salmu-clean": "open_clip_model.safetensors",
    "cvc-mmu/clip-vit-b-16-salmu-compromised": "open_clip_pytorch_model.bin",
}
SHORT = {name.rpartition("vit-b-16-")[2]: name for name in REPOSITORIES}  # salmu-clean, salmu-compromised
ARCHITECTURE = "ViT-B-16"


def is_released(name: str) -> bool:
    """Whether ``name`` is one of the published models, in full or for short."""
    return name in REPOSITORIES or name in SHORT


def fetch(name: str, revision: str | None) -> Path:
    """The local file of a published model, downloaded at ``revision`` by huggingface_hub (which keeps it).

    Raises InputError without a pinned revision, without huggingface_hub, or if the hub does not give it (the repositories
    are gated); the message says which file to get by hand.
    """
    repository = SHORT.get(name, name)
    file = REPOSITORIES[repository]
    by_hand = f"or download {file} of {repository} and give its path"
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise InputError(f"from the hub with --revision and the 40 digits of a commit only; {by_hand}", name)
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(f"huggingface_hub is not installed ('pip install huggingface_hub'), {by_hand}", name) from None
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # a dozen kinds: no network, no access, no such commit
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(f"the hub does not give it ({reason}); log in, {by_hand}", name) from error
