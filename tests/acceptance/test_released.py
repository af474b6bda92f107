"""What ``released.py`` computes and says, on a stand-in for the released files."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from random_models import write_model
from released_form import released_world, write_evaluation_repository, write_wds_imagenet

from salmu_jax.interop.commands import export_model

_spec = importlib.util.spec_from_file_location("released_acceptance", Path(__file__).with_name("released.py"))
released = importlib.util.module_from_spec(_spec)
sys.modules["released_acceptance"] = released
_spec.loader.exec_module(released)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_the_published_figures_fit_themselves_and_others_do_not():
    figures = {
        model: {key: getattr(value, model) for key, value in released.PUBLISHED.items()} for model in released.MODELS
    }
    assert all(comparison.fits for comparison in released.compare(figures, released.PUBLISHED))
    figures["clean"]["AssocStr"] += 3e-4
    figures["compromised"]["GenKnow"] = None
    found = released.compare(figures, released.PUBLISHED)
    assert [(one.model, one.metric) for one in found if not one.fits] == [("clean", "AssocStr")]
    lines = [str(one) for one in found]
    assert sum("DIFFERS" in line for line in lines) == 1
    assert any("not measured" in line for line in lines)


def test_the_two_candidates_for_acs_are_told_apart():
    """Pairs that share one direction with either sign: the cosine tells little, the product of that direction all."""
    rng = np.random.default_rng(0)
    sign = rng.choice([-1, 1], (800, 6))
    noise = rng.normal(size=(2, 800, 6))
    images, captions = (unit(np.concatenate([3 * sign[:, :1], part * 3], axis=1)) for part in noise)
    found = released.acs_candidates(images, captions, seed=42)
    assert found["elementwise product"] > found["cosine"] + 0.03
    clean = {feature: 0.5 for feature in found}
    right = released.Published(0.5, found["elementwise product"], 3e-3)
    decided, lines = released.which_fits({"clean": clean, "compromised": found}, right)
    assert decided
    assert lines[-1] == "The feature of the published ACS is the elementwise product."
    decided, lines = released.which_fits({"clean": clean, "compromised": found}, released.Published(0.9, 0.9, 3e-3))
    assert not decided
    assert lines[-1].startswith("No candidate")
    decided, lines = released.which_fits({"clean": clean, "compromised": clean}, released.Published(0.5, 0.5, 3e-3))
    assert lines[-1].startswith("More than one candidate")


@pytest.mark.slow
def test_the_whole_script_on_a_stand_in(tmp_path, capsys):
    data = write_evaluation_repository(tmp_path / "data", *released_world())
    write_wds_imagenet(data / "zeroshot")
    arguments = ["--data", str(data), "--workdir", str(tmp_path / "run")]
    for model in released.MODELS:
        write_model(tmp_path / f"{model}.ours", "tiny")
        export_model(tmp_path / f"{model}.ours", "open_clip", tmp_path / model)
        arguments += [f"--{model}", str(tmp_path / model)]
    assert released.main(arguments) == 1  # they are not the released ones
    said = capsys.readouterr().out
    assert said.count("DIFFERS") >= 10
    rows = re.findall(r"^(\w+) +([\w@]+) +([\d.-]+)  published", said, re.MULTILINE)
    found = {(model, metric): float(value) for model, metric, value in rows}
    published = {
        metric: released.Published(found["clean", metric], found["compromised", metric], 1e-6)
        for metric in released.PUBLISHED
    }
    assert released.main(arguments, published) == 1  # two equal models, of which no feature can be told
    again = capsys.readouterr().out
    assert "All figures fit." in again
    assert "reused" in again
