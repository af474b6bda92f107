"""A run that is interrupted anywhere and started again ends with the bits of one that was not."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from salmu_jax.runtime.errors import InputError, Preempted
from salmu_jax.training import loop, nonfinite
from salmu_jax.training.mesh import make_mesh, param_shardings
from salmu_jax.training.nonfinite import Numbered
from salmu_jax.training.state_store import StateStore
from salmu_jax.training.step import TrainState
from salmu_jax.training.stopping import SavePolicy

TOTAL = 20
EVERY_SIX = SavePolicy(6)


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
    """``run(directory, ...)``: 20 steps from the states in ``directory``, killed or told to end when a batch is drawn."""

    def run(
        directory,
        *,
        kill_at=None,
        terminate_at=None,
        by=signal.SIGTERM,
        steps_per_call=1,
        policy=EVERY_SIX,
        mesh=None,
        step=None,
        identity="A",
        before_batch=lambda index: None,
        **options,
    ):
        mesh = mesh or make_mesh(devices=jax.devices()[:1])
        kernel = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
        state = TrainState({"kernel": kernel}, {"kernel": np.zeros_like(kernel)}, np.int32(0))
        state = jax.device_put(state, param_shardings(state, mesh))
        drawn = []

        def stream(first_step):
            for index, batch in enumerate(batches(first_step), first_step):
                before_batch(index)
                if index == kill_at:
                    raise Killed
                if index == terminate_at:
                    os.kill(os.getpid(), by)
                drawn.append(index)
                yield Numbered(batch, {"pairs": 100 * index + np.arange(8)})

        history = loop.History(directory / "metrics.jsonl")
        store = StateStore(directory, identity, policy, stride=steps_per_call)
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
                history=history,
                label="pretrain clean",
                identify=lambda source, places: [f"{source[:-1]} {place}" for place in places],
                **options,
            )
        finally:
            store.close()
        return final, history.records(), drawn

    return run


def saved_steps(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


@pytest.mark.optimised
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
        said = f"pretrain clean: resuming at step {saved} of 20\n"
        assert capfd.readouterr().out == (said if saved else "")


@pytest.mark.optimised
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(run, tmp_path):
    undisturbed, records, _ = run(tmp_path / "whole", policy=SavePolicy(2))
    for kill_at in (3, 9, 9):
        with pytest.raises(Killed):
            run(tmp_path / "killed", kill_at=kill_at, policy=SavePolicy(2))
    state, again, _ = run(tmp_path / "killed", policy=SavePolicy(2))
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
    run(tmp_path, steps_per_call=steps_per_call, policy=SavePolicy(save_every))
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
        run(tmp_path, step=poisoned, steps_per_call=steps_per_call, policy=SavePolicy(5), constants=(jnp.nan,))
    file = tmp_path / "not-finite-step-13.json"
    assert str(caught.value) == (
        "pretrain clean: loss is not finite at step 13 in a batch of 8 (pair 1200, pair 1201, pair 1202, ...; all are in"
        f" {file}); lower the learning rate (saved states are kept)"
    )
    assert json.loads(file.read_text()) == {
        "step": 13,
        "what": "loss is not finite",
        "batch": {"pairs": [{"position": row, "id": f"pair {row}"} for row in range(1200, 1208)]},
    }
    assert saved_steps(tmp_path) == [5, 10]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] in (10, 12)
    state, _, drawn = run(tmp_path, steps_per_call=steps_per_call)
    assert drawn[0] == 10
    assert int(state.step) == TOTAL


@pytest.mark.parametrize(("steps_per_call", "bad"), [(1, 15), (5, 15)])
def test_no_state_is_saved_whose_parameters_are_not_finite(run, tmp_path, steps_per_call, bad):
    def overflowing(state, batch):
        new, metrics = momentum_step(state, batch)
        spoilt = {"kernel": new.params["kernel"].at[0, 0].set(jnp.inf)}
        return new._replace(
            params=jax.tree.map(lambda a, b: jnp.where(state.step + 1 >= bad, a, b), spoilt, new.params)
        ), {"loss": jnp.where(state.step < bad, metrics["loss"], 1.0)}

    with pytest.raises(InputError, match=r"a parameter is not finite at step 15 in a batch of 8"):
        run(tmp_path, step=overflowing, steps_per_call=steps_per_call, policy=SavePolicy(5))
    assert saved_steps(tmp_path) == [5, 10]


def test_metrics_that_are_not_losses_may_be_anything():
    assert nonfinite.first_bad_step({"gradient_norm": np.array([np.inf])}) is None
    bad = {"loss": np.array([1.0, 1.0, np.nan]), "loss/total": np.array([1.0, -np.inf, np.nan])}
    assert nonfinite.first_bad_step(bad) == ("loss/total", 1)


class Clock:
    """Minutes pass as the test says: one a look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 60
        return self.now


@pytest.mark.parametrize(("minutes", "saved"), [(0.0, [20]), (4.0, [4, 8, 12, 16, 20]), (1e6, [20])])
def test_states_are_saved_by_the_clock_too(run, tmp_path, minutes, saved):
    run(tmp_path, policy=SavePolicy(100, minutes, keep_last=100), clock=Clock())
    # The timer looks once a step and once after each save.
    assert saved_steps(tmp_path) == saved


@pytest.mark.parametrize(("steps_per_call", "stopped"), [(1, 8), (5, 10)])
def test_sigterm_saves_and_stops_and_the_run_goes_on_from_there(run, batches, tmp_path, steps_per_call, stopped):
    undisturbed, records, _ = run(tmp_path / "whole", steps_per_call=steps_per_call)

    with pytest.raises(Preempted) as caught:
        run(tmp_path / "stopped", terminate_at=7, steps_per_call=steps_per_call)
    assert caught.value.step == stopped
    assert str(caught.value).startswith(f"pretrain clean: stopped by SIGTERM; the state of step {stopped} is saved in ")
    assert max(saved_steps(tmp_path / "stopped")) == stopped
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    state, again, drawn = run(tmp_path / "stopped", steps_per_call=steps_per_call)
    assert drawn == list(range(stopped, TOTAL))
    assert bits(state) == bits(undisturbed)
    assert again == records


def test_a_hangup_saves_and_stops_and_is_called_by_its_name(run, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored below nohup
    try:
        with pytest.raises(Preempted, match="pretrain clean: stopped by SIGHUP; the state of step 8 is saved in "):
            run(tmp_path, terminate_at=7, by=signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_sigterm_while_a_call_runs_waits_for_no_further_one(run, tmp_path, monkeypatch):
    add = loop.History.add

    def terminate(history, step, metrics):
        add(history, step, metrics)
        if step == 5:  # the metrics of step 5 are waited for while step 6 is under way
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.History, "add", terminate)
    with pytest.raises(Preempted) as caught:
        run(tmp_path)
    assert caught.value.step == 6


@pytest.mark.parametrize(
    ("epochs", "pairs", "batch_size", "steps"),
    [(1, 160, 16, 10), (1, 161, 16, 11), (0.5, 160, 16, 5), (0.001, 160, 16, 1), (0.1, 30, 3, 1), (0.3, 100, 3, 10)],
)
def test_epochs_are_steps_and_no_more(epochs, pairs, batch_size, steps):
    assert loop.steps_of(epochs, pairs, batch_size) == steps


def test_the_last_call_is_as_long_as_what_is_left(run, tmp_path):
    by_one, one_by_one, _ = run(tmp_path / "one")
    for steps_per_call, ends in ((7, [7, 14, 20]), (64, [20])):
        state, records, drawn = run(tmp_path / str(steps_per_call), steps_per_call=steps_per_call)
        assert drawn == list(range(TOTAL))
        assert [record["step"] for record in records] == ends
        assert records[-1]["loss"] == pytest.approx(one_by_one[-1]["loss"], rel=1e-5)
        np.testing.assert_allclose(state.params["kernel"], by_one.params["kernel"], rtol=1e-4, atol=1e-6)


def test_a_run_goes_on_with_calls_of_another_length_at_their_multiples(run, tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, kill_at=7)
    _, records, drawn = run(tmp_path, steps_per_call=5)
    assert drawn == list(range(6, TOTAL))
    assert [record["step"] for record in records][-3:] == [10, 15, 20]


def test_derived_seeds_are_of_their_seed_and_purpose_alone():
    seeds = {(seed, purpose): loop.derived_seed(seed, purpose) for seed in range(40) for purpose in range(5)}
    assert len(set(seeds.values())) == 200
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert seeds == {key: loop.derived_seed(*key) for key in reversed(seeds)}
    assert loop.derived_seed(42, 2) == int(np.random.default_rng([42, 2]).integers(2**31))


def test_the_history_is_flushed_to_the_disk_before_the_state_that_goes_on_from_it(run, tmp_path, monkeypatch):
    calls = []
    sync, save = loop.History.sync, StateStore.save
    monkeypatch.setattr(loop.History, "sync", lambda history: (calls.append("history"), sync(history)))
    monkeypatch.setattr(StateStore, "save", lambda store, step, state: (calls.append(step), save(store, step, state)))
    run(tmp_path)
    assert calls == ["history", 6, "history", 12, "history", 18, "history", 20]


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: bytes(len(line) - 1) + b"\n",  # what a power cut leaves of a file system's block
        lambda line: line[:4] + bytes([line[4] ^ 0x40]) + line[5:],
        lambda line: line[: len(line) // 2] + b"\n",
        lambda line: line.replace(b"10", b"3"),
        lambda line: b"\xff" + line[1:],
        lambda line: b"[" * 100_000 + b"\n",
        lambda line: b"[]\n",
        lambda line: b'{"step": 10, "loss": "much"}\n',
        lambda line: b'{"step": 10, "loss": [1]}\n',
        lambda line: b'{"step": true}\n',
    ],
)
def test_a_damaged_history_is_cut_there_and_the_run_goes_on(tmp_path, damage):
    warnings = []
    path = tmp_path / "metrics.jsonl"
    history = loop.History(path, warnings.append)
    for step in (5, 10, 15):
        history.add(step, {"loss": 1 / step})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage(lines[1]) + lines[2])
    history.truncate(15)
    assert [record["step"] for record in history.records()] == [5]
    assert warnings == [f"warning: {path} is damaged at line 2; the lines after it are dropped"]
    history.add(20, {"loss": 1.0})
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_something_else_in_the_place_of_the_history_is_named_before_anything_is_done(run, tmp_path, make):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match=r"metrics\.jsonl: it is a (directory|pipe); a regular file is needed"):
        run(tmp_path, before_batch=lambda index: pytest.fail("it began"))


def test_a_history_is_json_whatever_the_metrics_are(tmp_path):
    history = loop.History(tmp_path / "metrics.jsonl")
    history.add(1, {"loss": 1.0, "gradient_norm": float("inf"), "update": float("nan")})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"step": 1, "loss": 1.0, "gradient_norm": "inf", "update": "nan"}\n'
    (record,) = history.records()
    assert record["gradient_norm"] == float("inf")
    assert np.isnan(record["update"])
    history.truncate(1)
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_a_state_directory_that_is_removed_under_a_run_ends_it(run, tmp_path):
    def removing(step):
        if step == 9:
            (tmp_path / "s").rename(tmp_path / "gone")  # at once: what is being saved may be written meanwhile

    with pytest.raises(InputError, match=r"s: was removed while it was written to; the same command begins again"):
        run(tmp_path / "s", before_batch=removing)
    undisturbed, _, _ = run(tmp_path / "whole")
    state, _, drawn = run(tmp_path / "s")
    assert drawn in (list(range(TOTAL)), list(range(6, TOTAL)))  # the state of step 6 may have been written after that
    assert bits(state) == bits(undisturbed)


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
