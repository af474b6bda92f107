"""Writes the model card of an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salmu_jax.models import zoo
from salmu_jax.models.clip import ClipConfig

_LOADING = {
    "open_clip": """import open_clip

model = open_clip.create_model("local-dir:THIS-DIRECTORY")""",
    "huggingface": """from transformers import CLIPModel

model = CLIPModel.from_pretrained("THIS-DIRECTORY")""",
}

# OpenCLIP knows some of our architectures by name; these load from the weights file alone.
_BY_NAME = """
# or
model = open_clip.create_model("{architecture}", pretrained="THIS-DIRECTORY/open_clip_model.safetensors")"""
_PREPARATION = {
    "open_clip": "OpenCLIP's transform and tokenizer prepare images and captions as in training{cut}.",
    "huggingface": """CLIPProcessor does without two things that the training did. Captions: repair them first, with
`html.unescape(html.unescape(ftfy.fix_text(caption)))`; the ids are then the same. Images: its centre crop is one pixel
off where the long side, once resized, is longer than the crop's {size} pixels by an odd number.""",
}
# Models trained here have the project's licence. Weights and data from elsewhere keep their makers' terms.
_OURS = "license: apache-2.0"
_THEIRS = """license: other
license_name: as-the-source
license_link: https://huggingface.co/cvc-mmu"""
_TERMS = """It was made from others' weights or data, whose terms still apply: the published models are for research only,
the published data sets under CC BY 4.0.

"""


def model_card(manifest: Mapping[str, Any], to: str, config: ClipConfig) -> str:
    """Returns the ``README.md`` of an export, from the model's manifest and its architecture ``config``."""
    architecture = zoo.name_of(config) or "an architecture of its own"
    merges = zoo.bpe_merges(config)
    loading = _LOADING[to] + (_BY_NAME.format(architecture=architecture) if _is_theirs(to, architecture) else "")
    cut = f", except for the vocabulary, cut after {merges:,} merges: its tokenizer is salmu_jax's" if merges else ""
    preparation = _PREPARATION[to].format(cut=cut, size=config.image_size)
    elsewhere = manifest.get("source") or (manifest.get("config") or {}).get("world_dir")
    image, tokenizer = manifest.get("image") or {}, manifest.get("tokenizer") or {}
    read = manifest.get("splits_read")
    name = " ".join(str(manifest.get("name") or "A CLIP").split())
    rows = [
        ("name", name),
        ("architecture", architecture),
        ("activation", manifest.get("activation")),
        ("SHA-256 of the parameters", f"`{manifest['digest']}`"),
        ("parent's", f"`{manifest['parent']}`" if manifest.get("parent") else "none"),
        ("splits it was trained on", ", ".join(read) if read else "not recorded"),
        ("steps", manifest.get("steps")),
        (
            "images",
            f"{image.get('resize')}; {image.get('interpolation')}; mean {image.get('mean')}, std {image.get('std')}",
        ),
        (
            "captions",
            f"CLIP's BPE{f' after {merges:,} merges' if merges else ''}, {tokenizer.get('context_length')} ids",
        ),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows if value is not None)
    return f"""---
{_THEIRS if elsewhere else _OURS}
tags: [clip, machine-unlearning, salmubench]
---
# {name} ({architecture})

A model of SALMUBench, exported by salmu_jax from its checkpoint. The people whose data such models learn, or are made to
forget, are fictitious. It is meant for measuring unlearning, not for use on real people. If it was trained on a made world
(the manifest of its checkpoint says so), none of its figures can be compared with the paper's.

| | |
|---|---|
{table}

```python
{loading}
```

{preparation}

{_TERMS if elsewhere else ""}`salmu.json` holds the digests of these files: `salmu import` compares them.
`parity.json` says how far this directory, loaded by the library itself, is from the checkpoint on a fixed batch.
"""


def _is_theirs(to: str, architecture: str) -> bool:
    return to == "open_clip" and architecture.startswith("ViT-")
