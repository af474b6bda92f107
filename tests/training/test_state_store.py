"""A run goes on from the newest state that is intact; every kind of damage is found, named and survived."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.mesh import make_mesh, param_shardings
from salmu_jax.training.records import device_digests
from salmu_jax.training.state_store import StateStore, state_path
from salmu_jax.training.stopping import SavePolicy

# A read of Orbax that fails leaves callbacks behind, for an event loop that is closed by then.
orbax_leftovers = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def bits(tree):
    return [(str(np.asarray(leaf).dtype), np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def array_files(directory):
    """Where Orbax keeps the payloads."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file() and path.parent.name == "d"]


def largest_file(directory):
    return max(array_files(directory), key=lambda path: path.stat().st_size)


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def state_at(step):
    """A state with what real ones hold: nested containers, scalars, matrices; every bit depends on ``step``."""
    draw = np.random.default_rng([3, step])
    tree = {"kernel": draw.normal(size=(64, 80)).astype(np.float32), "bias": draw.normal(size=3).astype(np.float32)}
    return {
        "params": tree,
        "opt_state": ((tree, ()), [np.int32(step)]),
        "half": draw.normal(size=8).astype(ml_dtypes.bfloat16),
        "step": np.int32(step),
    }


TEMPLATE = jax.tree.map(jnp.zeros_like, state_at(0))


def stored(directory, identity="A", **options):
    warnings = []
    return StateStore(directory, identity, warn=warnings.append, **options), warnings


def steps_in(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


@pytest.fixture
def states(tmp_path):
    """A directory with the states of steps 10 and 20 of run A."""
    store, _ = stored(tmp_path / "state")
    for step in (5, 10, 20):
        store.save(step, state_at(step))
    store.close()
    return tmp_path / "state"


def restored(directory, identity="A", template=TEMPLATE):
    """The step that is restored, whose bits are checked, or None; and the warnings."""
    store, warnings = stored(directory, identity)
    state = store.restore(template)
    store.close()
    if state is None:
        return None, warnings
    step = int(state["step"])
    assert bits(state) == bits(state_at(step))
    assert jax.tree.structure(state) == jax.tree.structure(template)
    assert all("\n" not in warning for warning in warnings)
    return step, warnings


def test_the_newest_two_states_are_kept_and_the_newest_is_restored(states):
    assert steps_in(states) == [10, 20]
    assert restored(states) == (20, [])


@pytest.mark.parametrize(
    ("policy", "stride", "kept"),
    [
        (SavePolicy(keep_last=1), 1, [8]),
        (SavePolicy(keep_last=3), 1, [6, 7, 8]),
        (SavePolicy(keep_last=1, keep_every=3), 1, [3, 6, 8]),
        (SavePolicy(keep_last=2, keep_every=4), 2, [4, 5, 7, 8]),
    ],
)
def test_the_last_states_and_the_milestones_are_kept(tmp_path, policy, stride, kept):
    store, _ = stored(tmp_path / "s", policy=policy, stride=stride)
    for step in range(1, 9):
        store.save(step, {"step": np.int32(step)})
    store.close()
    assert steps_in(tmp_path / "s") == kept


@pytest.mark.parametrize(
    ("policy", "stride", "due"),
    [
        (SavePolicy(every=6), 2, [6, 12, 18, 24]),
        (SavePolicy(every=7), 5, [10, 15, 25]),
        (SavePolicy(every=1), 5, [5, 10, 15, 20, 25]),
        (SavePolicy(every=100, keep_every=10), 4, [12, 20]),
    ],
)
def test_states_are_due_at_the_first_call_at_or_after_each_multiple(policy, stride, due):
    ends = range(stride, 26, stride)
    assert [end for end in ends if policy.due(end - stride, end)] == due
    milestones = [end for end in ends if policy.is_milestone(end, stride)]
    assert milestones == ([12, 20] if policy.keep_every else [])


def test_nothing_is_restored_from_nothing(tmp_path):
    assert restored(tmp_path / "new" / "state") == (None, [])


def test_a_state_is_restored_with_the_shardings_of_the_template(states):
    template = jax.device_put(TEMPLATE, param_shardings(TEMPLATE, make_mesh(fsdp=4)))
    store, _ = stored(states)
    state = store.restore(template)
    store.close()
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == jax.tree.map(lambda leaf: leaf.sharding, template)
    assert bits(state) == bits(state_at(20))


def test_flipped_bits_in_the_newest_state_are_named_and_the_older_one_used(states):
    named = 0
    largest = largest_file(states / "20")
    whole = largest.read_bytes()
    for position in np.linspace(1_000, len(whole) - 1_000, 8).astype(int):
        flip(largest, position)
        step, (warning,) = restored(states)
        assert step == 10
        assert warning.startswith(f"warning: {states}/20 cannot be used (")
        named += "params.kernel is damaged" in warning or "opt_state.0.0.kernel is damaged" in warning
        largest.write_bytes(whole)
    assert named >= 4
    assert restored(states) == (20, [])


def test_everything_that_is_wrong_with_a_state_is_listed_at_once(states):
    meta = states / "20" / "meta" / "metadata"
    records = json.loads(meta.read_text())
    records["leaves"]["params.bias"]["digest"] = "0" * 32
    records["leaves"]["half"]["digest"] = "1" * 32
    meta.write_text(json.dumps(records))
    step, (warning,) = restored(states)
    assert step == 10
    damaged = "is damaged (its digest is not the recorded one)"
    assert warning == (
        f"warning: {states}/20 cannot be used (half {damaged}; params.bias {damaged}); trying an older one"
    )
    largest, manifest = largest_file(states / "20"), states / "20" / "state" / "manifest.ocdbt"
    size = largest.stat().st_size
    largest.write_bytes(largest.read_bytes()[: size // 2])
    manifest.unlink()
    _, (warning,) = restored(states)
    cut = f"{largest.relative_to(states / '20')} is cut off after {size // 2:,} of {size:,} bytes"
    assert warning == (
        f"warning: {states}/20 cannot be used (state/manifest.ocdbt is missing; {cut}); trying an older one"
    )


@orbax_leftovers
@pytest.mark.parametrize("damage", ["cut", "missing", "longer"])
@pytest.mark.parametrize("inventory", [True, False])
def test_any_damaged_file_of_a_state_is_found_named_and_survived(states, damage, inventory):
    if not inventory:  # it only helps to name the damage: without it, what matters is found all the same
        (states / "20" / "files.json").unlink()
    paths = [path for path in sorted((states / "20").rglob("*")) if path.is_file()]
    assert len(paths) >= 8
    fallbacks = []
    for path in paths:
        data, name = path.read_bytes(), path.relative_to(states / "20").as_posix()
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(data[: len(data) // 2] if damage == "cut" else data + b"x")
        step, warnings = restored(states)
        if inventory and path.name not in ("files.json", "_CHECKPOINT_METADATA", "commit_success.txt"):
            problem = {"cut": "is cut off after", "missing": "is missing", "longer": "has "}[damage]
            assert step == 10, name
            assert f"{name} {problem}" in warnings[0]
        assert step == (10 if warnings else 20), name
        fallbacks += [name] if step == 10 else []
        path.write_bytes(data)
    if damage != "longer":
        assert {"meta/metadata", largest_file(states / "20").relative_to(states / "20").as_posix()} <= set(fallbacks)
    assert restored(states) == (20, [])


def test_an_empty_step_directory_is_passed_over(states):
    (states / "40").mkdir()
    assert restored(states) == (
        20,
        [f"warning: {states}/40 cannot be used (it is an empty directory); trying an older one"],
    )


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda path: path.write_text("{"), "meta/metadata cannot be read: Expecting property name"),
        (lambda path: path.write_bytes(b"\xff"), "meta/metadata cannot be read: 'utf-8' codec"),
        (lambda path: path.write_text("[]"), "it is of schema [], not 'salmu_jax.state/2'"),
        (lambda path: path.write_text('{"schema": "salmu_jax.state/1"}'), "it is of schema 'salmu_jax.state/1'"),
        (lambda path: edited(path, lambda meta: meta.pop("leaves")), "meta/metadata cannot be read: 'leaves'"),
        (lambda path: edited(path, lambda meta: meta["leaves"].pop("half")), "half is missing"),
        (lambda path: edited(path, lambda meta: meta["leaves"]["half"].pop("shape")), "cannot be read: 'shape'"),
        (
            lambda path: edited(path, lambda meta: meta["leaves"]["half"].update(shape=[9])),
            "half has shape [9], not [8]",
        ),
        (
            lambda path: edited(path, lambda meta: meta["leaves"]["step"].update(dtype="int64")),
            "step has dtype int64, not int32",
        ),
        (lambda path: shutil.rmtree(path.parent), "meta/metadata is missing"),
    ],
)
def test_damaged_metadata_is_named_and_survived(states, edit, complaint):
    (states / "20" / "files.json").unlink()
    edit(states / "20" / "meta" / "metadata")
    step, (warning,) = restored(states)
    assert step == 10
    assert complaint in warning


def edited(path, edit):
    meta = json.loads(path.read_text())
    edit(meta)
    path.write_text(json.dumps(meta))


def test_what_a_killed_save_leaves_is_ignored_and_can_be_saved_again(states):
    shutil.copytree(states / "20", states / "30.orbax-checkpoint-tmp-1234567")
    (states / "30.orbax-checkpoint-tmp-1234567" / "commit_success.txt").unlink(missing_ok=True)
    assert restored(states) == (20, [])
    store, _ = stored(states)
    store.save(30, state_at(30))
    store.close()
    assert restored(states) == (30, [])


def test_a_state_is_flushed_to_the_disk_before_it_counts(tmp_path, monkeypatch):
    """A power cut after it has counted would leave a state of the right sizes and no contents."""
    flushed = []
    monkeypatch.setattr(
        files, "sync_tree", lambda path: flushed.append((path.name, steps_in(tmp_path / "s"), _names(path)))
    )
    store, _ = stored(tmp_path / "s")
    store.save(7, state_at(7))
    store.close()
    ((name, counted, held),) = flushed
    assert name.startswith("7.orbax-checkpoint-tmp")
    assert counted == []
    assert {"files.json", "meta", "state"} <= held


def _names(directory):
    return {path.name for path in directory.iterdir()}


def test_when_every_state_is_damaged_the_run_starts_anew(states):
    for step in (10, 20):
        shutil.rmtree(states / str(step) / "state")
    step, warnings = restored(states)
    assert step is None
    assert len(warnings) == 2


def test_states_of_another_run_are_ignored_and_kept(states):
    store, warnings = stored(states, "B")
    assert store.restore(TEMPLATE) is None
    assert warnings == []
    for step in (2, 4, 6):
        store.save(step, state_at(step))
    store.close()
    assert steps_in(states) == [4, 6, 10, 20]
    assert restored(states, "B") == (6, [])
    assert restored(states, "A") == (20, [])


def test_a_run_that_begins_with_the_states_of_another_leaves_them_as_they_are(states, tmp_path):
    before = {path: path.read_bytes() for path in states.rglob("*") if path.is_file()}
    (states / "30.orbax-checkpoint-tmp-1").mkdir()  # somebody may be saving there
    other = StateStore(states, "A", read_only=True)
    store, _ = stored(tmp_path / "B", "B", before=other)
    state = store.restore(TEMPLATE)
    assert bits(state) == bits(state_at(20))
    store.save(25, state_at(25))
    store.close()
    other.close()
    assert restored(tmp_path / "B", "B") == (25, [])
    assert {path: path.read_bytes() for path in states.rglob("*") if path.is_file()} == before
    assert (states / "30.orbax-checkpoint-tmp-1").is_dir()


def test_a_run_does_not_begin_anew_if_it_was_to_go_on_from_states_that_do_not_fit(states, tmp_path):
    other = StateStore(states, "A", warn=lambda line: None, read_only=True)
    store, _ = stored(tmp_path / "B", "B", before=other)
    with pytest.raises(InputError, match="no state there can be resumed from; --restart begins at step 0"):
        store.restore({**TEMPLATE, "half": jnp.zeros(9, jnp.bfloat16)})
    store.close()
    other.close()


def test_damaged_states_are_replaced_when_the_run_comes_by_again(states):
    largest = largest_file(states / "20")
    flip(largest, largest.stat().st_size // 2)
    (states / "40").mkdir()
    store, _ = stored(states)
    assert int(store.restore(TEMPLATE)["step"]) == 10
    store.save(20, state_at(20))
    store.close()
    assert steps_in(states) == [10, 20]
    assert restored(states) == (20, [])


def test_a_state_of_other_shapes_is_not_used(states):
    template = {**TEMPLATE, "half": jnp.zeros(9, jnp.bfloat16)}
    store, warnings = stored(states)
    assert store.restore(template) is None
    assert "half has shape [8], not [9]" in warnings[0]
    store.close()


@pytest.mark.parametrize(("saved_over", "restored_over"), [(1, 8), (8, 1), (8, 4), (4, 2), (2, 8)])
def test_a_state_is_restored_over_any_number_of_devices(tmp_path, saved_over, restored_over):
    def placed(tree, devices):
        mesh = make_mesh(fsdp=min(devices, 4), devices=jax.devices()[:devices])
        return jax.device_put(tree, param_shardings(tree, mesh))

    store, _ = stored(tmp_path / "s")
    store.save(7, placed(state_at(7), saved_over))
    store.close()
    template = placed(TEMPLATE, restored_over)
    store, warnings = stored(tmp_path / "s")
    state = store.restore(template)
    store.close()
    assert warnings == []
    assert bits(state) == bits(state_at(7))
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == jax.tree.map(lambda leaf: leaf.sharding, template)


def test_what_is_saved_is_the_state_of_that_moment_whatever_becomes_of_its_buffers(tmp_path):
    change = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 3 + 1, tree), donate_argnums=0)
    mesh = make_mesh(fsdp=4)
    state = jax.device_put(state_at(10), param_shardings(TEMPLATE, mesh))
    store, _ = stored(tmp_path / "s")
    kernel = state["params"]["kernel"]
    store.save(10, state)
    for _ in range(5):
        state = change(state)
    assert kernel.is_deleted()
    store.close()
    assert restored(tmp_path / "s") == (10, [])


# Digests and paths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, np.int8, np.bool_, np.float16, ml_dtypes.bfloat16])
def test_device_digests_see_every_bit_and_not_how_an_array_is_split(dtype):
    draw = np.random.default_rng(5)
    array = draw.integers(0, 2, (8, 12)).astype(dtype)
    digests = {
        device_digests({"x": jax.device_put(array, sharding)})["x"]
        for devices, fsdp in ((1, 1), (2, 2), (8, 4))
        for sharding in [param_shardings(array, make_mesh(fsdp=fsdp, devices=jax.devices()[:devices]))]
    }
    (digest,) = digests
    assert re.fullmatch("[0-9a-f]{32}", digest)
    seen = {digest}
    count = 0
    flat = array.view(np.uint8).ravel()
    bit_numbers = [0] if dtype == np.bool_ else range(8)
    for byte in range(0, flat.size, 7):
        for bit in bit_numbers:
            changed = flat.copy()
            changed[byte] ^= 1 << bit
            seen.add(device_digests({"x": jnp.asarray(changed.view(array.dtype).reshape(array.shape))})["x"])
            count += 1
    assert len(seen) == count + 1
    # Rows that change places, values that move to others, signed zeros and the bits of NaNs are all seen.
    assert device_digests({"x": jnp.asarray(np.roll(array, 1, axis=0))})["x"] != digest


def test_device_digests_of_odd_values_differ():
    words = np.array([0x7FC00000, 0x7FC00001, 0x80000000, 0, 1, 0x7F800000], np.uint32)
    arrays = [np.full(3, word, np.uint32).view(np.float32) for word in words]
    assert len({device_digests({"x": jnp.asarray(array)})["x"] for array in arrays}) == len(arrays)
    assert device_digests({"x": jnp.float32(2)}) != device_digests({"x": jnp.float32(3)})
    assert device_digests({"x": jnp.zeros((0, 3))})["x"] == "0" * 32


def test_buckets_are_handed_through_and_a_missing_library_is_named(monkeypatch, tmp_path):
    from etils import epath

    monkeypatch.chdir(tmp_path)
    assert str(state_path("runs/x")) == f"{tmp_path}/runs/x"
    bucket = epath.Path("gs://bucket/runs/clean.state")
    monkeypatch.setattr(type(bucket), "exists", lambda path: True)
    assert str(state_path("gs://bucket/runs/clean.state")) == "gs://bucket/runs/clean.state"

    def no_library(path):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(type(bucket), "exists", no_library)
    with pytest.raises(InputError) as caught:
        StateStore("gs://bucket/runs/clean.state", "A")
    assert str(caught.value) == (
        "gs://bucket/runs/clean.state: buckets are read through gcsfs, which is not installed: pip install gcsfs"
    )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Save failed: 3/3 params are missing .zarray in checkpoint:\nstep."),
        FileNotFoundError(2, "No such file or directory", "s/4.orbax-checkpoint-tmp/state"),
        ValueError('NOT_FOUND: Error opening "zarr3" driver\n' + "In progress...\n" * 300),
    ],
)
@pytest.mark.parametrize("call", ["save", "wait_until_finished", "close"])
def test_files_that_are_removed_under_a_save_end_the_run_with_a_line(tmp_path, monkeypatch, call, error):
    def failing(*_, **__):
        raise error

    store, _ = stored(tmp_path / "s")
    original = getattr(store._manager, call)
    monkeypatch.setattr(store._manager, call, failing)
    actions = {"save": lambda: store.save(1, state_at(1)), "wait_until_finished": store.wait, "close": store.close}
    with pytest.raises(InputError, match=r"s: files in it were removed while it was written to") as told:
        actions[call]()
    assert "\n" not in str(told.value)
    if call == "close":
        original()
