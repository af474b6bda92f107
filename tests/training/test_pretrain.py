"""What pretrain() hands to the loop, without training: an evaluation if the config asks for one, and the right steps."""

import pytest

from salmu_jax.config import base_config
from salmu_jax.models.build import make_clip
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import Identity
from salmu_jax.training import pretrain as module
from salmu_jax.training.pretrain import pretrain
from salmu_jax.training.states import States


class Source:
    """Pairs that are counted only."""

    splits = ("salmu/retain_synth",)

    def __len__(self):
        return 20


class Stopped(Exception):
    """Raised in the place of the loop."""


@pytest.fixture
def handed_over(monkeypatch, tmp_path):
    """``handed_over(**fields)``: the keyword arguments of the loop, and the models that an evaluation was made for."""

    def handed_over(**fields):
        config, options, made = base_config(), {}, []
        for name, value in {"batch_size": 8, "epochs": 2.0, "warmup_steps": 0, **fields}.items():
            config.train[name] = value
        config.model.architecture = "tiny"

        def run(step, state, batches, **given):
            options.update(given)
            raise Stopped

        def evaluation(clip, mesh):
            made.append((clip, mesh))
            return lambda params: {"zeroshot_top1": 0.5}

        monkeypatch.setattr(module.loop, "run", run)
        monkeypatch.setattr(module, "_initial_state", lambda *_: None)
        states = States(tmp_path / "clean.state", Identity({"seed": 42}), "pretrain clean")
        with pytest.raises(Stopped):
            pretrain(config, Source(), tmp_path / "clean", states, name="clean", manifest={}, evaluation=evaluation)
        assert [clip for clip, _ in made] == [make_clip(config)] * len(made)
        assert all(mesh is options["mesh"] for _, mesh in made)
        return options, made

    return handed_over


def test_an_evaluation_is_made_if_the_config_asks_for_it(handed_over):
    options, made = handed_over(evaluate_every=2)
    assert len(made) == 1
    assert options["total_steps"] == 5
    assert options["watch"].evaluation_due(1, 2)
    assert options["watch"].evaluate(None) == {"zeroshot_top1": 0.5}
    options, made = handed_over()
    assert not made
    assert not options["watch"].evaluation_due(0, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 24}, "train.batch_size: 24 pairs per step are more than the 20 that there are"),
        ({"warmup_steps": 6}, "train.warmup_steps: 6 steps of warm-up do not fit into the run: train.epochs=2"),
        ({"microbatch": 3}, "train.microbatch: "),
    ],
)
def test_sizes_that_do_not_fit_are_refused(handed_over, fields, message):
    with pytest.raises(InputError) as caught:
        handed_over(**fields)
    assert str(caught.value).startswith(message)
