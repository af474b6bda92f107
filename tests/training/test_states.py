"""No run touches the states of another; one that has changed since it was saved asks before it resumes or restarts."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import salmu_jax
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import Identity
from salmu_jax.training.states import States
from salmu_jax.training.stopping import SavePolicy

FIELDS = {"seed": 42, "train": {"epochs": 4.0}, "datasets": {"salmu": "a" * 64}, "code": {"salmu_jax/x.py": "0" * 64}}
CHANGED = {**FIELDS, "train": {"epochs": 8.0}, "datasets": {"salmu": "b" * 64}, "code": {"salmu_jax/x.py": "1" * 64}}
TEMPLATE = {"step": jnp.int32(0)}


def states(root, fields=FIELDS, **options):
    return States(root, Identity(fields), "pretrain clean", **options)


def train(run, *steps):
    """Begins or goes on, saves states, and returns the step from which it went on."""
    other = run.begin()
    with run.opened(SavePolicy(), stride=1, other=other) as store:
        before = store.restore(TEMPLATE)
        for step in steps:
            store.save(step, {"step": np.int32(step)})
    return None if before is None else int(before["step"])


def files_below(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_run_goes_on_from_its_own_states(tmp_path):
    root = tmp_path / "clean.state"
    assert train(states(root), 100, 200) is None
    assert train(states(root), 300) == 200
    digest = Identity(FIELDS).digest
    assert [path.name for path in root.iterdir()] == [digest[:12]]
    about = json.loads((root / digest[:12] / "run.json").read_text())
    assert about["schema"] == "salmu_jax.run/1"
    assert about["identity"] == digest
    assert about["fields"] == FIELDS


def test_another_version_alone_goes_on(tmp_path, monkeypatch):
    train(states(tmp_path / "s"), 100)
    monkeypatch.setattr(salmu_jax, "__version__", "9.9.9")
    assert train(states(tmp_path / "s")) == 100


@pytest.fixture
def unfinished(tmp_path):
    """The states of a run that was stopped at step 200, where a changed one will look."""
    train(states(tmp_path / "clean.state"), 100, 200)
    return tmp_path / "clean.state"


def test_an_unfinished_training_of_another_config_data_and_code_stops_the_run_and_nothing_is_lost(unfinished):
    before = files_below(unfinished)
    with pytest.raises(InputError) as caught:
        train(states(unfinished, CHANGED))
    assert str(caught.value) == (
        f"{unfinished}/{Identity(FIELDS).digest[:12]}: pretrain clean: an unfinished training was saved here at step 200, and"
        " has changed since: datasets.salmu aaaaaaaa -> bbbbbbbb, train.epochs 4.0 -> 8.0, code salmu_jax/x.py; add --resume"
        " to resume from it all the same, or --restart to begin at step 0 (nothing is removed)"
    )
    assert files_below(unfinished) == before
    assert train(states(unfinished)) == 200


def test_restart_begins_beside_it(unfinished):
    before = files_below(unfinished)
    assert train(states(unfinished, CHANGED, unfinished="restart"), 50, 60, 70) is None
    assert train(states(unfinished, CHANGED, unfinished="restart")) == 70  # the same command goes on
    assert train(states(unfinished, CHANGED)) == 70
    assert train(states(unfinished)) == 200
    assert before.items() <= files_below(unfinished).items()


def test_resume_goes_on_from_it_and_says_so(unfinished):
    before = files_below(unfinished)
    run = states(unfinished, CHANGED, unfinished="resume")
    other = run.begin()
    assert other.step == 200
    assert other.identity == Identity(FIELDS).digest
    assert other.changes[-1] == "code salmu_jax/x.py"
    assert train(run, 250) == 200
    assert train(states(unfinished, CHANGED)) == 250
    assert before.items() <= files_below(unfinished).items()


def test_a_finished_run_removes_its_own_states_alone(unfinished):
    before = files_below(unfinished)
    run = states(unfinished, CHANGED, unfinished="restart")
    train(run, 50)
    run.remove()
    assert files_below(unfinished) == before
    states(unfinished).remove()
    assert not unfinished.exists()
    states(unfinished).remove()  # nothing there


def test_a_users_files_are_not_removed(unfinished):
    (unfinished / "notes.txt").write_text("mine")
    states(unfinished).remove()
    assert [path.name for path in unfinished.iterdir()] == ["notes.txt"]


def test_work_directories_that_share_a_state_directory_go_on_undisturbed(tmp_path):
    shared = str(tmp_path / "bucket" / "clean.state")
    one = states(tmp_path / "one" / "clean.state", shared=shared, owner="one")
    other = states(tmp_path / "other" / "clean.state", CHANGED, shared=shared, owner="other")
    assert train(one, 50) is None
    assert train(other, 10, 20, 30) is None  # no question: it is not this work directory's
    assert train(one, 60) == 50
    assert train(other) == 30
    one.remove()
    assert train(other) == 30
    changed = {**FIELDS, "seed": 7}
    with pytest.raises(InputError, match=r"at step 60, and has changed since: seed 42 -> 7; add --resume"):
        train(states(tmp_path / "one" / "clean.state", changed, shared=shared, owner="one"))


def test_states_of_an_earlier_layout_are_asked_about(tmp_path):
    from salmu_jax.training.state_store import StateStore

    store = StateStore(tmp_path / "s", "A")
    store.save(40, {"step": np.int32(40)})
    store.close()
    with pytest.raises(InputError, match=r"s: pretrain clean: an unfinished training was saved here at step 40"):
        train(states(tmp_path / "s"))
    assert train(states(tmp_path / "s", unfinished="resume"), 50) == 40
    assert train(states(tmp_path / "s")) == 50


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "salmu_jax.run/1"}'])
def test_a_damaged_description_loses_no_states(unfinished, text):
    (unfinished / Identity(FIELDS).digest[:12] / "run.json").write_text(text)
    with pytest.raises(InputError, match="has changed since: it does not record what it was made from; add --resume"):
        train(states(unfinished, CHANGED))
    assert train(states(unfinished)) == 200
    assert train(states(unfinished, CHANGED, unfinished="resume")) == 200


def test_a_second_run_with_the_same_states_is_refused_while_the_first_is_at_work(tmp_path):
    shared = str(tmp_path / "states" / "clean.state")
    one = states(tmp_path / "one" / "clean.state", shared=shared, owner="one")
    other = states(tmp_path / "other" / "clean.state", shared=shared, owner="other")
    one.begin()
    with one.opened(SavePolicy(), stride=1) as store:
        store.save(10, {"step": np.int32(10)})
        with pytest.raises(InputError, match="another run is using the same states"):
            train(other)
        other.finish()  # which it is not
    assert train(other, 20) == 10
    assert train(states(tmp_path / "one" / "clean.state", shared=shared, owner="one", rerun=True)) == 20


@pytest.mark.parametrize("shared", [True, False])
def test_rerun_begins_at_step_0_beside_the_states_of_the_finished_run(tmp_path, shared):
    place = tmp_path / "states" / "clean.state" if shared else tmp_path / "clean.state"
    options = {"shared": str(place)} if shared else {}
    train(states(tmp_path / "clean.state", **options), 100)
    states(tmp_path / "clean.state", **options).finish()
    kept = {path.name: data for path, data in files_below(place).items()}
    again = states(tmp_path / "clean.state", rerun=True, **options)
    assert train(again, 50) is None
    assert train(again) == 50  # it was stopped: the same command goes on
    assert kept.keys() <= {path.name for path in files_below(place)}
    assert len(list(place.glob("*.finished-1/100"))) == 1
    changed = states(tmp_path / "clean.state", CHANGED, **options)
    with pytest.raises(InputError, match="saved here at step 50, and"):
        changed.begin()
    again.finish()
    assert changed.begin() is None  # nothing is unfinished
