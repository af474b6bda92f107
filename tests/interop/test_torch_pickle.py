"""PyTorch's files without PyTorch: the same arrays as torch.load, and nothing in them is ever run."""

import collections
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salmu_jax.errors import InputError
from salmu_jax.interop import torch_pickle
from salmu_jax.interop.reading import read_state

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw):
    """A tensor, maybe a transposed, sliced or expanded view of another."""
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    tensor = torch.arange(int(np.prod(shape, dtype=int))).reshape(shape).to(draw(st.sampled_from(DTYPES)))
    if tensor.dim() > 1 and draw(st.booleans()):
        tensor = tensor.transpose(0, 1)
    if tensor.dim() and tensor.shape[0] > 1 and draw(st.booleans()):
        tensor = tensor[1:]
    if tensor.dim() and draw(st.booleans()):
        tensor = tensor[:1].expand(3, *tensor.shape[1:]) if tensor.shape[0] else tensor
    return tensor


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(tensors(), min_size=1, max_size=4), st.booleans())
def test_tensors_come_out_as_torch_has_them(tmp_path, several, parameters):
    state = collections.OrderedDict((f"t{index}", tensor) for index, tensor in enumerate(several))
    if parameters:
        state["p"] = torch.nn.Parameter(torch.ones(2, 3))
    torch.save(state, tmp_path / "x.pt")
    found = torch_pickle.load(tmp_path / "x.pt")
    assert list(found) == list(state)
    for name, tensor in state.items():
        theirs = tensor.detach()
        assert str(found[name].dtype) == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(found[name].astype(np.float64), theirs.double().numpy())


def test_a_training_checkpoint_of_a_wrapped_model_is_a_state_dict(tmp_path):
    state = {f"module.{name}": torch.ones(2) for name in ("a", "b")}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "scaler": None}, tmp_path / "epoch_3.pt")
    assert list(read_state(tmp_path / "epoch_3.pt")) == ["a", "b"]


class Runs:
    """Unpickled by anything that trusts it, this makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("in_state_dict", [False, True])
def test_a_file_that_wants_to_run_something_is_refused_and_does_not(tmp_path, in_state_dict):
    trap = Runs(tmp_path / "ran")
    torch.save({"a": torch.ones(1), "b": trap} if in_state_dict else trap, tmp_path / "evil.bin")
    with pytest.raises(InputError) as caught:
        torch_pickle.load(tmp_path / "evil.bin")
    assert "its pickle wants posix.mkdir, which is no part of a tensor; such a file is not opened" in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "torch.load", "numpy.load", "torch._utils._rebuild_xla"]
)
def test_every_other_name_is_refused(tmp_path, name):
    module, _, function = name.rpartition(".")
    code = f"c{module}\n{function}\n(S'x'\ntR.".encode()
    with zipfile.ZipFile(tmp_path / "evil.bin", "w") as archive:
        archive.writestr("x/data.pkl", code)
    with pytest.raises(InputError, match=f"its pickle wants {name}"):
        torch_pickle.load(tmp_path / "evil.bin")


def test_damage_of_every_kind_is_one_line(tmp_path):
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "good.bin")
    good = (tmp_path / "good.bin").read_bytes()

    def message(data, name="bad.bin"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            torch_pickle.load(tmp_path / name)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "cut off, or of an older PyTorch" in message(good[:-100])
    assert "cut off, or of an older PyTorch" in message(b"\x80\x02" + pickle.dumps(3))
    newer = bytearray(good)
    newer[good.index(b"PK\x01\x02") + 6] = 64  # the version of zip that it takes to read the first entry
    assert "zip file version 6.4" in message(bytes(newer))
    flipped = bytearray(good)
    flipped[good.index(np.arange(1000, dtype=np.float32).tobytes()) + 17] ^= 1
    assert "not a zip archive" in message(bytes(flipped)) or "damaged" in message(bytes(flipped))  # zip has a checksum
    with zipfile.ZipFile(tmp_path / "other.bin", "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert "no data.pkl in it" in message((tmp_path / "other.bin").read_bytes())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_byte_is_one_line_or_changes_no_tensor(tmp_path, data):
    tensor = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": tensor}, tmp_path / "good.bin")
    changed = bytearray((tmp_path / "good.bin").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "bad.bin").write_bytes(changed)
    found, said = {"a": tensor.numpy()}, ""
    try:
        found = torch_pickle.load(tmp_path / "bad.bin")
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    np.testing.assert_array_equal(found["a"], tensor.numpy())


@pytest.mark.parametrize(("size", "stride"), [((3,), (1,)), ((2,), (5,)), ((1, 1), (1,)), ((-1,), (1,))])
def test_a_view_beyond_its_numbers_is_refused(size, stride):
    with pytest.raises(ValueError, match=r"beyond|no view"):
        torch_pickle._rebuild_tensor(np.zeros(2, np.float32), 0, size, stride)
