"""PyTorch's files without PyTorch: the same arrays as torch.load, and nothing in them is ever run."""

import argparse
import collections
import os
import pathlib
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salmu_jax.interop import torch_pickle
from salmu_jax.interop.pickled import Unread
from salmu_jax.runtime.errors import InputError

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path, code, **entries):
    """An archive as torch.save makes them around the pickle ``code``, with stored numbers ``entries``."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", code)
        for name, data in entries.items():
            archive.writestr(f"x/data/{name.removeprefix('n')}", data)
    return path


def refusal(path):
    with pytest.raises(InputError) as caught:
        torch_pickle.load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@st.composite
def tensors(draw):
    """A tensor, maybe a transposed or sliced view of another."""
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    tensor = torch.arange(int(np.prod(shape, dtype=int))).reshape(shape).to(draw(st.sampled_from(DTYPES)))
    if tensor.dim() > 1 and draw(st.booleans()):
        tensor = tensor.transpose(0, 1)
    if tensor.dim() and tensor.shape[0] > 1 and draw(st.booleans()):
        tensor = tensor[1:]
    return tensor


@settings(SLOW, max_examples=60)
@given(st.lists(tensors(), min_size=1, max_size=4), st.booleans(), st.integers(2, 5))
def test_tensors_come_out_as_torch_has_them(tmp_path, several, parameters, protocol):
    state = collections.OrderedDict((f"t{index}", tensor) for index, tensor in enumerate(several))
    if parameters:
        state["p"] = torch.nn.Parameter(torch.ones(2, 3))
    torch.save(state, tmp_path / "x.pt", pickle_protocol=protocol)
    found = torch_pickle.load(tmp_path / "x.pt")
    assert list(found) == list(state)
    for name, tensor in state.items():
        theirs = tensor.detach()
        assert found[name].dtype == str(theirs.dtype).removeprefix("torch.")
        assert found[name].shape == tuple(theirs.shape)
        array = found[name].read()
        assert str(array.dtype) == found[name].dtype
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array.astype(np.float64), theirs.double().numpy())


class Runs:
    """Unpickled by anything that trusts it, this makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("where", ["alone", "in the state dict", "beside it"])
def test_a_file_that_wants_to_run_something_is_refused_and_does_not(tmp_path, where):
    trap = Runs(tmp_path / "ran")
    state = {"a": torch.ones(1)}
    value = {"alone": trap, "in the state dict": {**state, "b": trap}, "beside it": {"model": state, "args": trap}}[
        where
    ]
    torch.save(value, tmp_path / "evil.bin")
    said = "its pickle wants posix.mkdir, for which no checkpoint has a use; such a file is not opened"
    assert said in refusal(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "subprocess.Popen", "runpy.run_path", "importlib.util.x"]
)
@pytest.mark.parametrize("stacked", [False, True])
def test_names_of_traps_are_refused_however_they_are_written(tmp_path, name, stacked):
    module, _, function = name.rpartition(".")
    named = f"c{module}\n{function}\n".encode()
    if stacked:
        named = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, function)) + b"\x93"
    path = write(tmp_path / "evil.bin", b"\x80\x04" + named + b"X\x01\x00\x00\x00x\x85R.")
    assert f"its pickle wants {name}, for which no checkpoint has a use" in refusal(path)


def test_objects_of_any_class_are_passed_over_and_nothing_of_them_is_called(tmp_path):
    class Settings(dict):
        pass

    globals()["Settings"] = Settings
    Settings.__qualname__ = "Settings"
    value = {
        "args": argparse.Namespace(lr=1e-3, output=pathlib.PurePosixPath("/x")),
        "settings": Settings(a=1),
        "counter": collections.Counter("abc"),
        "a set": {1, 2},
        "numpy": np.float64(3),
        "array": np.ones(3),
        "type": torch.float32,
        "device": torch.device("cpu"),
        "kept": [1, 2.5, "x", None, True, (1, 2), b"xy", -(2**70)],
        "tensor": torch.ones(2),
    }
    for protocol in (2, 4):
        torch.save(value, tmp_path / "x.pt", pickle_protocol=protocol)
        found = torch_pickle.load(tmp_path / "x.pt")
        assert list(found) == list(value)
        assert isinstance(found["args"], Unread)
        assert found["args"].kind == "argparse.Namespace"
        assert isinstance(found["settings"], Unread)
        kept = [item for item in found["kept"] if not isinstance(item, bytes | Unread)]
        assert kept == [item for item in value["kept"] if not isinstance(item, bytes)]
        np.testing.assert_array_equal(found["tensor"].read(), [1, 1])
    del globals()["Settings"]


def test_attributes_are_set_of_nothing(tmp_path):
    """BUILD of a dtype's alignment of 0 would end the process at the next array; of a function, last for all files."""
    before = np.dtype(np.float32).alignment
    state = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    for named in (b"ctorch\nFloatStorage\n", b"cnumpy\ndtype\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        found = torch_pickle.load(write(tmp_path / "x.bin", b"\x80\x02" + named + state + b"b."))
        assert str(found) in ("torch.FloatStorage", "numpy.dtype", "torch._utils._rebuild_tensor_v2")
    assert np.dtype(np.float32).alignment == before
    assert np.ones(3, np.float32).sum() == 3


_PUSH = b"\x80\x02}"  # PROTO 2, EMPTY_DICT


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (_PUSH + b"r\x00\x00\x00\x18.", None),  # remembers at index 0x18000000: 6 GiB, were it an array
        (_PUSH + b"r\xff\xff\xff\xffj\xff\xff\xff\xff.", None),
        (_PUSH + b"j\x00\x00\x00\x18.", "nothing is remembered as 402653184"),
        (b"\x80\x04\x95" + b"\xff" * 8 + b"}.", None),  # a frame of 2^64 bytes
        (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x0fx.", "the pickle ends at"),  # texts, bytes, numbers of 2^60
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0fx.", "the pickle ends at"),
        (b"\x80\x05\x96" + b"\xff" * 7 + b"\x0fx.", "the pickle ends at"),
        (b"\x80\x02X\xff\xff\xff\xffx.", "the pickle ends at"),
        (b"\x80\x02\x8b\xff\xff\xff\x7fx.", "an integer of 2,147,483,647 bytes"),
        (b"\x80\x02\x8b\xff\xff\xff\xffx.", "an integer of -1 bytes"),
        (b"\x80\x02I" + b"9" * 5000 + b"\n.", "opcode INT at 2, which torch.save does not write"),
        (b"\x80\x02cos\x00" + b"x" * 5000, "no end of the name"),
        (b"\x80\x02\xfe.", "byte 0xfe at 2, which torch.save does not write"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x63.", "protocol 99"),
        (b"\x80\x02.", "nothing on the stack"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02K\x01K\x02R.", "a call of something that is not a function"),
        (b"\x80\x02]K\x02K\x03s.", "entries of something that is not a dictionary"),
        (b"\x80\x02K\x01K\x02a.", "items of something that is not a list"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "a text that is not UTF-8"),
        (b"", "the pickle ends at 0"),
    ],
)
def test_no_opcode_takes_more_memory_than_the_pickle_has_bytes(tmp_path, code, said, small_memory):
    path = write(tmp_path / "x.bin", code)
    if said:
        assert said in refusal(path)
    else:
        assert torch_pickle.load(path) == {}


@pytest.fixture
def small_memory():
    """A process that may take no more than 256 MiB beyond what it has."""
    import resource

    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + (1 << 28), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    "code",
    [
        b"]" * 50_000 + b"a" * 49_999 + b".",
        b"N" + b"\x85" * 50_000 + b".",
        b"}N" + b"\x85" * 200_000 + b"K\x01s.",  # hashed, such a key ends the process
        b"}" + b"X\x01\x00\x00\x00a}" * 50_000 + b"s" * 50_000 + b".",
        b"(" * 50_000 + b"t" * 50_000 + b".",
        b"ca\nb\n" + b")R" * 50_000 + b".",
    ],
)
def test_no_depth_is_too_deep(tmp_path, code):
    torch_pickle.load(write(tmp_path / "x.bin", b"\x80\x02" + code))


def test_keys_that_hash_alike_take_no_longer(tmp_path):
    keys = b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(60_000))
    found = torch_pickle.load(write(tmp_path / "x.bin", b"\x80\x02}(" + keys + b"u."))
    assert len(found) == 60_000


def test_steps_and_bytes_of_a_pickle_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("salmu_jax.interop.pickled.MAX_STEPS", 1000)
    assert "a pickle of more than 1,000 steps" in refusal(write(tmp_path / "x.bin", b"\x80\x02" + b"]0" * 1000 + b"N."))
    monkeypatch.setattr("salmu_jax.interop.torch_pickle.MAX_BYTES", 1000)
    assert "x/data.pkl has 2,004 bytes; at most 1,000" in refusal(tmp_path / "x.bin")


@settings(SLOW, max_examples=150)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from([bytes([code]) for code in b"}](ut0.asNRbQq\x00\x85\x86\x87\x88K\x01h2X\x94\x93\x81"])
        ).map(b"".join),
    )
)
def test_any_bytes_are_a_value_or_one_line(tmp_path, code):
    path = write(tmp_path / "x.bin", b"\x80\x04" + code + b".", n0=b"\0" * 8)
    said = ""
    try:
        torch_pickle.load(path)
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 600


# Archives -------------------------------------------------------------------------------------------------------------


def test_damage_of_every_kind_is_one_line(tmp_path):
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "good.bin")
    good = (tmp_path / "good.bin").read_bytes()

    def message(data):
        (tmp_path / "bad.bin").write_bytes(data)
        return refusal(tmp_path / "bad.bin")

    assert "no directory at its end: cut off, or another kind of file" in message(good[:-100])
    assert "another kind of file" in message(b"")
    flipped = bytearray(good)
    flipped[good.index(np.arange(1000, dtype=np.float32).tobytes()) + 17] ^= 1
    (tmp_path / "bad.bin").write_bytes(flipped)
    with pytest.raises(InputError, match="damaged, good/data/0 does not have its checksum; get the file again"):
        torch_pickle.load(tmp_path / "bad.bin")["a"].read()
    with zipfile.ZipFile(tmp_path / "bad.bin", "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert "no data.pkl in it" in refusal(tmp_path / "bad.bin")


def test_what_no_torch_archive_is(tmp_path):
    def archive(compression=zipfile.ZIP_STORED, names=("x/data.pkl",)):
        with zipfile.ZipFile(tmp_path / "x.bin", "w", compression) as file:
            for name in names:
                file.writestr(name, b"\x80\x02}.")
        return bytearray((tmp_path / "x.bin").read_bytes())

    def said(data):
        (tmp_path / "x.bin").write_bytes(data)
        return refusal(tmp_path / "x.bin")

    assert "x/data.pkl is compressed or encrypted, which torch.save never does" in said(archive(zipfile.ZIP_DEFLATED))
    with pytest.warns(UserWarning, match="Duplicate"):
        assert "'x/data.pkl' is in it twice" in said(archive(names=("x/data.pkl", "x/data.pkl")))
    assert "no data.pkl in it" in said(archive(names=("x/data.pkl", "y/data.pkl")))
    two = archive(names=("x/data.pkl", "x/data/0"))
    directory = two.index(b"PK\1\2")
    second = two.index(b"PK\1\2", directory + 4)
    claims = bytearray(two)
    claims[second + 20 : second + 28] = struct.pack("<LL", 2**31, 2**31)
    assert "'x/data/0' of 2,147,483,648 bytes at" in said(claims)
    over = bytearray(two)
    over[directory + 20 : directory + 28] = struct.pack("<LL", 43, 43)
    assert "lies over another entry" in said(over)
    moved = bytearray(two)
    moved[second + 42 : second + 46] = moved[directory + 42 : directory + 46]
    assert "no 'x/data/0' at 0" in said(moved)
    encrypted = bytearray(two)
    encrypted[directory + 8] |= 1
    assert "is compressed or encrypted" in said(encrypted)
    fewer = bytearray(two)
    fewer[-12:-10] = b"\1\0"
    assert "its directory holds 2 entries, not 1" in said(fewer)
    assert "does not fit into it" in said(two[:-10] + struct.pack("<L", 2**31) + two[-6:])
    assert "no directory at its end" in said(two + b"more")


def test_archives_of_more_than_4_gib_have_their_sizes_elsewhere(tmp_path):
    """The form with 64 bits, which torch.save takes for large files, made by hand around small ones."""
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as archive, archive.open("x/data.pkl", "w", force_zip64=True) as entry:
        entry.write(b"\x80\x02}.")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    central = data[at:end]
    extra = struct.pack("<HHQQ", 1, 16, 4, 4)
    central[20:28] = b"\xff" * 8
    central[30:32] = struct.pack("<H", len(extra))
    central += extra
    record = b"PK\6\6" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, len(central), at)
    locator = b"PK\6\7" + struct.pack("<LQL", 0, at + len(central), 1)
    last = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:at] + central + record + locator + last)
    assert torch_pickle.load(path) == {}
    path.write_bytes(data[:at] + central + record + struct.pack("<4sLQL", b"PK\6\7", 0, 2**63, 1) + last)
    assert "is beyond its end" in refusal(path)


def test_pipes_and_directories_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "x.bin")
    assert "it is a pipe; a regular file is needed" in refusal(tmp_path / "x.bin")
    (tmp_path / "y.bin").mkdir()
    assert "it is a directory" in refusal(tmp_path / "y.bin")


def test_old_files_and_programs_say_what_they_are_and_what_to_do(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    said = refusal(tmp_path / "old.pth")
    assert "written by PyTorch before 1.6, or in its old form" in said
    assert "torch.save(torch.load('old.pth', map_location='cpu', weights_only=True), 'new.pt')" in said
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "jit.pt"))
    said = refusal(tmp_path / "jit.pt")
    assert "a TorchScript archive, as OpenAI publishes CLIP" in said
    assert "torch.save(torch.jit.load('jit.pt', map_location='cpu').state_dict(), 'weights.pt')" in said


@settings(SLOW, max_examples=80)
@given(st.data())
def test_any_changed_byte_is_one_line_or_changes_no_tensor(tmp_path, data):
    tensor = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": tensor}, tmp_path / "good.bin")
    changed = bytearray((tmp_path / "good.bin").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "bad.bin").write_bytes(changed)
    found, said = tensor.numpy(), ""
    try:
        found = torch_pickle.load(tmp_path / "bad.bin")["a"].read()
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    np.testing.assert_array_equal(found, tensor.numpy())


# Tensors --------------------------------------------------------------------------------------------------------------


def integer(value):
    """The opcodes of a whole number."""
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def view(size, stride, offset=0, kind=b"FloatStorage", count=2):
    """A pickle of one tensor, a view of a storage of two float32."""
    reference = b"(X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    reference += integer(count) + b"tQ"
    numbers = [b"(" + b"".join(map(integer, values)) + b"t" for values in (size, stride)]
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + reference + integer(offset) + b"".join(numbers) + b"\x89}tR."
    )


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        *(((3,), (1,), 0), ((2,), (5,), 0), ((-1,), (1,), 0), ((2,), (-1,), 1), ((1,), (1,), 2), ((1,), (1, 1), 0)),
        *(((2**62,), (1,), 0), ((2**40, 2), (2**40, 1), 0), ((1,) * 65, (1,) * 65, 0)),
    ],
)
def test_a_view_beyond_its_numbers_is_refused(tmp_path, size, stride, offset):
    said = refusal(write(tmp_path / "x.bin", view(size, stride, offset), n0=b"\0" * 8))
    assert "reaches beyond its 2 numbers" in said or "not a view of its numbers" in said


@pytest.mark.parametrize("size", [(500_000_000,), (2**20, 2**20), (2,) * 40])
def test_a_view_that_repeats_its_numbers_is_not_read(tmp_path, size, small_memory):
    """339 bytes that claim 2 GB."""
    tensor = torch_pickle.load(write(tmp_path / "x.bin", view(size, (0,) * len(size)), n0=b"\0" * 8))
    assert tensor.repeats
    with pytest.raises(InputError, match="is a view that repeats its numbers, which is not read"):
        tensor.read()


def test_numbers_that_are_not_as_many_as_said_or_not_there_are_refused(tmp_path):
    path = tmp_path / "x.bin"
    assert "storage 0 holds 8 bytes, not 3 numbers" in refusal(write(path, view((2,), (1,), count=3), n0=b"\0" * 8))
    assert "no numbers '0'" in refusal(write(path, view((2,), (1,))))
    unknown = torch_pickle.load(write(path, view((2,), (1,), kind=b"QInt8Storage"), n0=b"\0" * 8))
    with pytest.raises(InputError, match="is of unknown numbers, which is not read"):
        unknown.read()


def test_kinds_of_numbers_without_a_storage_are_named(tmp_path):
    torch.save({"a": torch.ones(2).to(torch.float8_e4m3fn), "b": torch.ones(2)}, tmp_path / "x.pt")
    found = torch_pickle.load(tmp_path / "x.pt")
    assert found["a"].dtype == "float8_e4m3fn"
    np.testing.assert_array_equal(found["b"].read(), [1, 1])


def test_tied_tensors_and_tensors_with_attributes_are_read(tmp_path):
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    weight.note = "mine"
    plain = torch.arange(4.0)
    plain.note = "mine"
    torch.save({"a": weight, "tied": weight.detach(), "plain": plain}, tmp_path / "x.pt")
    found = torch_pickle.load(tmp_path / "x.pt")
    for name in ("a", "tied"):
        np.testing.assert_array_equal(found[name].read(), weight.detach().numpy())
    np.testing.assert_array_equal(found["plain"].read(), plain.numpy())
