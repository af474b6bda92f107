"""Every method on the world of ``mini.py``, with three seeds each and the probes in their full form: hours on two CPU cores.

Killed at any moment, the same command goes on. Settings are those of ``mini.py`` and the methods' presets ``mini``, found by a
few tries with the figures in view: they show what each method does, and rank none. To compare methods, select their
settings alike (docs/sweep.md).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import mini

SEEDS = (42, 43, 44)
DRAW_NOTHING = (
    "text_projection",
)  # a closed form: all seeds give one model, and a report takes equal models for a mistake
CONTROLS = ("no_op", "random_weights")
# Methods with a preset for towers of this size.
LATER = (
    "salun",
    "ssd",
    "slug",
    "munba",
    "lip",
    "task_vector",
    "negmerge",
    "weight_soup",
    "targeted_forgetting",
    "scrub",
    "lora_subtract",
    "text_projection",
)
_STEPS: dict[str, Any] = {"learning_rate": 3e-4, "epochs": 5.4, "batch_size": 128}
METHODS: dict[str, dict[str, Any]] = {
    **{name: fields for name, fields in mini.METHODS.items() if name not in CONTROLS},
    **{name: {"preset": "mini"} for name in LATER},
    **{name: _STEPS for name in ("cliperase_paper", "npo", "alignment_calibration", "gradient_projection")},
    "delete_paper": {**_STEPS, "batch_size": 64},
    # Whose defaults suit these towers.
    "descent_to_delete": {},
    "pinned_surrogates": {},
}


def get_config():
    config = mini.get_config()
    config.name = "suite"
    config.workdir = "runs/suite"
    config.evaluate.probe_form = "full"
    config.unlearn.methods = ConfigDict({name: mini.METHODS[name] for name in CONTROLS})
    config.unlearn.runs = ConfigDict(
        {
            f"{name}-s{seed}": {"method": name, **fields, "seed": seed}
            for name, fields in METHODS.items()
            for seed in (SEEDS[:1] if name in DRAW_NOTHING else SEEDS)
        }
    )
    return config
