"""A run that is interrupted anywhere and started again ends with the bits of one that was not."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from salmu_jax.errors import InputError
from salmu_jax.training import loop
from salmu_jax.training.checkpoint import StateStore
from salmu_jax.training.mesh import make_mesh, param_shardings
from salmu_jax.training.step import TrainState

TOTAL = 20


class Killed(Exception):
    """Raised by the batches, in the place of a kill."""


def momentum_step(state, batch):
    """A regression from pixels to the tokens of a batch, by gradient descent with momentum: it compiles in no time."""

    def loss(params):
        pixels = batch["images"].reshape(len(batch["images"]), -1) / 255
        return jnp.mean(jnp.square(pixels @ params["kernel"] - batch["tokens"]))

    value, gradients = jax.value_and_grad(loss)(state.params)
    velocity = 0.9 * state.opt_state["kernel"] - 0.05 * gradients["kernel"]
    params = {"kernel": state.params["kernel"] + velocity}
    return TrainState(params, {"kernel": velocity}, state.step + 1), {"loss": value}


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.fixture
def run(batches):
    """``run(directory, ...)``: a run of 20 steps from its states in ``directory``, killed before step ``kill_at`` if given."""

    def run(directory, *, kill_at=None, steps_per_call=1, save_every=6, mesh=None, step=None, identity="A", **options):
        mesh = mesh or make_mesh(devices=jax.devices()[:1])
        kernel = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
        state = TrainState({"kernel": kernel}, {"kernel": np.zeros_like(kernel)}, np.int32(0))
        state = jax.device_put(state, param_shardings(state, mesh))
        drawn = []

        def stream(first_step):
            for index, batch in enumerate(batches(first_step), first_step):
                if index == kill_at:
                    raise Killed
                drawn.append(index)
                yield batch

        history = loop.History(directory / "metrics.jsonl")
        store = StateStore(directory, identity)
        try:
            final = loop.run(
                step or momentum_step,
                state,
                stream,
                total_steps=TOTAL,
                steps_per_call=steps_per_call,
                batch_size=8,
                mesh=mesh,
                store=store,
                save_every=save_every,
                history=history,
                label="pretrain clean",
                **options,
            )
        finally:
            store.close()
        return final, history.records(), drawn

    return run


def saved_steps(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


@pytest.mark.parametrize(("steps_per_call", "kills"), [(1, [3, 6, 19]), (5, [4, 14])])
def test_an_interrupted_run_ends_with_the_same_bits(run, tmp_path, capfd, steps_per_call, kills):
    undisturbed, records, drawn = run(tmp_path / "whole", steps_per_call=steps_per_call)
    assert len({record["loss"] for record in records}) == len(records)
    assert int(undisturbed.step) == TOTAL
    assert drawn == list(range(TOTAL))
    assert [record["step"] for record in records] == list(range(steps_per_call, TOTAL + 1, steps_per_call))

    for kill_at in kills:
        directory = tmp_path / f"killed-{kill_at}"
        with pytest.raises(Killed):
            run(directory, kill_at=kill_at, steps_per_call=steps_per_call)
        saved = max(saved_steps(directory), default=0)
        assert kill_at - 6 - steps_per_call < saved <= kill_at
        capfd.readouterr()
        state, again, drawn = run(directory, steps_per_call=steps_per_call)
        assert drawn == list(range(saved, TOTAL))  # no pair is replayed, none is skipped
        assert bits(state) == bits(undisturbed)
        assert again == records
        said = f"pretrain clean: going on at step {saved} of 20\n"
        assert capfd.readouterr().out == (said if saved else "")


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(run, tmp_path):
    undisturbed, records, _ = run(tmp_path / "whole", save_every=2)
    for kill_at in (3, 9, 9):
        with pytest.raises(Killed):
            run(tmp_path / "killed", kill_at=kill_at, save_every=2)
    state, again, _ = run(tmp_path / "killed", save_every=2)
    assert bits(state) == bits(undisturbed)
    assert again == records


def test_a_finished_run_is_not_run_again(run, tmp_path):
    first, records, _ = run(tmp_path, steps_per_call=5)
    state, again, drawn = run(tmp_path, steps_per_call=5)
    assert drawn == []
    assert bits(state) == bits(first)
    assert again == records


def test_a_run_of_another_config_starts_anew(run, tmp_path):
    run(tmp_path / "s")
    _, records, drawn = run(tmp_path / "s", identity="B")
    assert drawn == list(range(TOTAL))
    assert len(records) == TOTAL


@pytest.mark.parametrize(
    ("steps_per_call", "save_every", "saved"),
    [(1, 6, [18, 20]), (5, 7, [15, 20]), (5, 1, [15, 20]), (5, 10, [10, 20]), (1, 100, [20])],
)
def test_states_are_saved_as_often_as_asked_and_at_the_end(run, tmp_path, steps_per_call, save_every, saved):
    run(tmp_path, steps_per_call=steps_per_call, save_every=save_every)
    assert saved_steps(tmp_path) == saved


def test_parameters_and_moments_stay_where_they_were_put(run, tmp_path):
    mesh = make_mesh(fsdp=2)
    plain, records, _ = run(tmp_path / "one", steps_per_call=5)
    state, sharded_records, _ = run(tmp_path / "eight", steps_per_call=5, mesh=mesh)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == param_shardings(state, mesh)
    assert {shard.data.shape for shard in state.params["kernel"].addressable_shards} == {(6, 4)}
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert sharded_records[-1]["loss"] == pytest.approx(records[-1]["loss"], rel=1e-4)
    again, _, drawn = run(tmp_path / "eight", steps_per_call=5, mesh=mesh)
    assert drawn == []
    assert jax.tree.map(lambda leaf: leaf.sharding, again) == param_shardings(state, mesh)


@pytest.mark.parametrize("steps_per_call", [1, 5])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_states(
    run, tmp_path, capfd, linear_clip, steps_per_call
):
    def poisoned(state, batch, poison):
        new, metrics = momentum_step(state, batch)
        return new, {**metrics, "loss": jnp.where(state.step == 12, poison, metrics["loss"])}

    with pytest.raises(InputError) as caught:
        run(tmp_path, step=poisoned, steps_per_call=steps_per_call, save_every=5, constants=(jnp.nan,))
    assert str(caught.value) == (
        "pretrain clean: loss is not finite at step 13; lower the learning rate (saved states are kept)"
    )
    assert saved_steps(tmp_path) == [5, 10]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] in (10, 12)
    state, _, drawn = run(tmp_path, steps_per_call=steps_per_call)
    assert drawn[0] == 10
    assert int(state.step) == TOTAL


def test_metrics_that_are_not_losses_may_be_anything():
    loop._check_finite({"gradient_norm": np.array([np.inf])}, 0, "x")
    with pytest.raises(InputError, match="loss/total is not finite at step 1,002"):
        loop._check_finite({"loss/total": np.array([1.0, -np.inf, np.nan])}, 1_000, "x")


@pytest.mark.parametrize(
    ("steps", "steps_per_call", "whole"),
    [(0, 1, 1), (0, 5, 5), (0.2, 1, 1), (1, 1, 1), (10, 5, 10), (10.01, 5, 15), (9.99, 5, 10), (11, 1, 11), (1, 7, 7)],
)
def test_whole_calls(steps, steps_per_call, whole):
    assert loop.whole_calls(steps, steps_per_call) == whole


def test_derived_seeds_are_of_their_seed_and_purpose_alone():
    seeds = {(seed, purpose): loop.derived_seed(seed, purpose) for seed in range(40) for purpose in range(5)}
    assert len(set(seeds.values())) == 200
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert seeds == {key: loop.derived_seed(*key) for key in reversed(seeds)}
    assert loop.derived_seed(42, 2) == int(np.random.default_rng([42, 2]).integers(2**31))


def test_history_drops_what_is_done_again_and_a_line_cut_off_by_a_kill(tmp_path):
    path = tmp_path / "state" / "metrics.jsonl"
    history = loop.History(path)
    assert history.records() == []
    records = [{"step": step, "loss": 1 / step} for step in (5, 10, 15)]
    for record in records:
        history.add(record["step"], {"loss": record["loss"]})
    assert history.records() == records
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert loop.History(path).records() == records[:2]
    path.write_bytes(whole + b'{"step": 20, "lo')
    assert loop.History(path).records() == records
    history.truncate(10)
    assert history.records() == records[:2]
    assert len(path.read_text().splitlines()) == 2
    history.add(15, {"loss": 1 / 15})
    assert path.read_bytes() == whole
    history.truncate(0)
    assert history.records() == []


def test_truncating_the_history_is_atomic(tmp_path, monkeypatch):
    history = loop.History(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        history.add(step, {"loss": 1.0})

    def killed(*_):
        raise Killed

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(Killed):
        history.truncate(2)
    assert len(history.records()) == 3
