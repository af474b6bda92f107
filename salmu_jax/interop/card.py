"""The model card that goes with an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LOADING = {
    "open_clip": """import open_clip

model = open_clip.create_model("{architecture}", pretrained="THIS-DIRECTORY/open_clip_model.safetensors")
# or, whatever the architecture: open_clip.create_model("local-dir:THIS-DIRECTORY")""",
    "huggingface": """from transformers import CLIPModel

model = CLIPModel.from_pretrained("THIS-DIRECTORY")""",
}


def model_card(manifest: Mapping[str, Any], to: str, architecture: str) -> str:
    """The text of ``README.md``, from a model's manifest."""
    image, tokenizer = manifest.get("image") or {}, manifest.get("tokenizer") or {}
    read = manifest.get("splits_read")
    merges = tokenizer.get("merges")
    rows = [
        ("name", manifest.get("name")),
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
tags: [clip, machine-unlearning, salmubench]
---
# {manifest.get("name") or "A CLIP"} ({architecture})

A model of SALMUBench, exported by salmu_jax from its checkpoint. The people whose data such models are taught, or made to
forget, are fictitious. It is meant for measuring unlearning, not for use on real people. If it was trained on a made world
(the manifest of its checkpoint says so), none of its figures can be compared with the paper's.

| | |
|---|---|
{table}

```python
{_LOADING[to].format(architecture=architecture)}
```

`parity.json` says how far this directory, loaded by the library itself, is from the checkpoint on a fixed batch.
"""
