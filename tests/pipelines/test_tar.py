"""The tar reader: what tarfile wrote comes back; whatever is damaged is named, and never a silently shorter list."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.layout import tar as tar_module
from data_pipelines.layout.tar import read_tar
from salmu_jax.runtime.errors import InputError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def archive(members, form="ustar", **fields):
    """The bytes of a tar as tarfile writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[form]) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write(tmp_path, data, name="00000.tar"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def read(path):
    return [(member.name, member.data) for member in read_tar(path)]


MEMBERS = [("a/0.jpg", bytes(range(256)) * 5), ("a/0.txt", b"a dog"), ("a/1.jpg", b""), ("a/1.txt", b"x" * 512)]
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="/"), max_size=60).map(
    "k/{}.jpg".format
)
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=5)


@settings(max_examples=60, deadline=None)
@given(FILES, st.sampled_from(["gnu", "pax"]), st.booleans(), st.sampled_from([0, 1_700_000_000.25]))
def test_what_tarfile_writes_comes_back(tmp_path_factory, members, form, packed, mtime):
    data = archive(members, form, mtime=mtime if form == "pax" else int(mtime))
    name = "x.tar.gz" if packed else "x.tar"
    path = write(tmp_path_factory.getbasetemp(), gzip.compress(data) if packed else data, name)
    assert read(path) == members


@pytest.mark.parametrize("form", FORMATS)
def test_long_names_prefixes_and_directories(tmp_path, form):
    members = [("d" * 90 + "/" + "e" * 60 + "/0.jpg", b"p"), ("f" * 96 + ".txt", b"q"), ("./g/0.jpg", b"r")]
    if form != "ustar":
        members += [
            ("h/" + "é" * 120 + ".jpg", b"s"),
            ("hi/" + "é" * 120 + ".jpg", b"t"),
        ]  # cut between and within letters
    data = archive(members, form)
    folder = tarfile.TarInfo("d")
    folder.type = tarfile.DIRTYPE
    label = tarfile.TarInfo("backup of May")
    label.type = b"V"
    data = label.tobuf() + folder.tobuf() + data
    assert read(write(tmp_path, data)) == [(name.removeprefix("./"), content) for name, content in members]


def test_unwanted_members_are_passed_over_whatever_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_module, "MAX_MEMBER", 1000)
    data = archive([("0.mp4", bytes(5000)), ("0.txt", b"x")])
    for name, content in (("a.tar", data), ("a.tar.gz", gzip.compress(data)), ("a.tgz", gzip.compress(data))):
        path = write(tmp_path, content, name)
        found = list(read_tar(path, lambda name: name.endswith("txt")))
        assert [(member.name, member.data) for member in found] == [("0.mp4", None), ("0.txt", b"x")]
        with pytest.raises(InputError, match=r"'0\.mp4' has 5,000 bytes; at most 1,000 are read"):
            list(read_tar(path))


def test_it_is_the_content_that_says_whether_it_is_packed(tmp_path):
    assert read(write(tmp_path, gzip.compress(archive(MEMBERS)), "a.tar")) == MEMBERS
    assert read(write(tmp_path, archive(MEMBERS), "a.tar.gz")) == MEMBERS
    for start, name in (
        (b"BZh91AY", "bzip2"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PK\3\4", "zip"),
    ):
        with pytest.raises(InputError, match=f"it is compressed with {name}"):
            read(write(tmp_path, start + bytes(2000)))


def damage_of(path, whole):
    """None if ``path`` is read as it was written; the line if it is refused. Anything else is a lie."""
    found = []
    try:
        for member in read_tar(path):
            found.append((member.name, member.data))
    except InputError as error:
        return str(error)
    assert found == whole
    return None


def test_every_flipped_bit_in_a_header_is_found(tmp_path):
    """Each of the bits that matter: those in the padding of the checksum's own field change nothing."""
    data = archive(MEMBERS)
    headers = (0, 512 + 1536, 512 + 1536 + 1024)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        at = int(rng.choice(headers)) + int(rng.integers(512))
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        found += damage_of(write(tmp_path, bytes(flipped)), MEMBERS) is not None
    assert found > 290


@pytest.mark.parametrize("packed", [False, True])
def test_every_cut_is_found(tmp_path, packed):
    """Also a cut where a member begins, and one between the two blocks that end a tar."""
    data = archive(MEMBERS)
    end = len(data.rstrip(b"\0"))
    end += -end % 512 + 1024  # the second block of zeros
    for keep in range(0, end, 512):
        content = gzip.compress(data[:keep], 1) if packed else data[:keep]
        path = write(tmp_path, content, "0.tar.gz" if packed else "0.tar")
        assert "damaged at byte" in damage_of(path, MEMBERS)
    assert damage_of(write(tmp_path, data[:end]), MEMBERS) is None
    whole = gzip.compress(data)
    for keep in (5, len(whole) // 2, len(whole) - 1):
        assert "damaged or cut short" in damage_of(write(tmp_path, whole[:keep], "1.tar.gz"), MEMBERS)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(list(FORMATS)))
def test_random_damage_never_gives_a_shorter_list(tmp_path_factory, data, form):
    """Bytes changed, cut out or put in: either refused, or as many members as there were."""
    members = [(f"{'long/' * 25 if number == 1 else ''}{number}.jpg", bytes([number]) * 600) for number in range(3)]
    content = bytearray(archive([(name[:100] if form == "ustar" else name, d) for name, d in members], form))
    kind = data.draw(st.sampled_from(["change", "cut out", "put in", "cut", "repeat"]))
    at = data.draw(st.integers(0, len(content) - 1))
    # Whole blocks that are cut out may take a member with them and leave a whole tar, as if it had never been in there.
    length = data.draw(
        st.integers(1, 600) if kind == "cut out" else st.integers(1, 3) | st.sampled_from([512, 1024, 2048])
    )
    if kind == "change":
        for place in range(at, min(at + length, len(content))):
            content[place] ^= data.draw(st.integers(1, 255))
            if place > at + 3:
                break
    elif kind == "cut out":
        del content[at : at + length + (length % 512 == 0)]
    elif kind == "put in":
        content[at:at] = bytes(length)
    elif kind == "cut":
        del content[at:]
    else:
        content = content * 2
    path = write(tmp_path_factory.getbasetemp(), bytes(content), "random.tar")
    try:
        found = [member.name for member in read_tar(path)]
    except InputError:
        return
    assert len(found) == len(members)


def test_two_tars_joined_are_found(tmp_path):
    first, second = archive(MEMBERS), archive([("b/0.jpg", b"p")])
    line = damage_of(write(tmp_path, first + second), MEMBERS)
    assert f"damaged at byte {len(first):,} (more than zeros behind the end, as of two tars joined)" in line
    joined = gzip.compress(first) + gzip.compress(second)
    assert "two tars joined" in damage_of(write(tmp_path, joined, "a.tar.gz"), MEMBERS)
    end = first.rstrip(b"\0")
    unfinished = end + bytes(-len(end) % 512) + bytes(512) + second  # one block of zeros between them
    assert "one block of zeros between members" in damage_of(write(tmp_path, unfinished), MEMBERS)


def header(name, size, kind=b"0", magic=b"ustar\x0000"):
    """A header block with a right checksum and any claim."""
    field = b"\x80" + size.to_bytes(11, "big") if size >= 8**11 else b"%011o\0" % size
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" * 3 + field + b"0" * 11 + b"\0" + b" " * 8 + kind)
    block = block.ljust(257, b"\0") + magic
    block = block.ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


CLAIMS = {
    "sparse": (header(b"0.jpg", 512, b"S", b"ustar  \0") + bytes(512), r"byte 0: '0\.jpg' is a sparse file"),
    "hard link": (header(b"0.jpg", 0, b"1"), "is a hard link"),
    "symbolic link": (header(b"0.jpg", 0, b"2"), "is a symbolic link"),
    "device": (header(b"0.jpg", 0, b"3"), "is a character device"),
    "pipe": (header(b"0.jpg", 0, b"6"), "is a pipe"),
    "volume": (header(b"0.jpg", 0, b"M"), "another volume"),
    "unknown kind": (header(b"0.jpg", 0, b"Z"), "unknown kind"),
    "16 GiB": (header(b"0.jpg", 1 << 34), r"'0\.jpg' claims 17,179,869,184 bytes, 1,024 are left"),
    "2**80": (header(b"0.jpg", 1 << 80), "claims 1,208,925,819,614,629,174,706,176 bytes"),
    "directory with contents": (header(b"d", 512, b"5") + bytes(512), "'d' is not a file and has contents"),
    "long name of 4 GiB": (header(b"././@LongLink", 1 << 32, b"L"), "claims 4,294,967,296"),
    "long name for nobody": (
        header(b"././@LongLink", 5, b"L") + b"a.jpg".ljust(512, b"\0"),
        "a name that no member has",
    ),
    "pax size": (
        header(b"p", 16, b"x") + b"16 size=1000000\n".ljust(512, b"\0") + header(b"0.jpg", 3) + bytes(512),
        "claims 1,000,000 bytes",
    ),
    "pax size is no number": (
        header(b"p", 12, b"x") + b"12 size=1e9\n".ljust(512, b"\0") + header(b"0.jpg", 3) + bytes(512),
        "a size of '1e9'",
    ),
    "pax sparse": (
        header(b"p", 22, b"x") + b"22 GNU.sparse.major=1\n".ljust(512, b"\0") + header(b"0.jpg", 3) + bytes(512),
        "is a sparse file",
    ),
    "pax record too long": (
        header(b"p", 12, b"x") + b"99 size=123\n".ljust(512, b"\0"),
        "pax records that are damaged",
    ),
    "pax without an end": (header(b"p", 12, b"x") + b"12 size=1234".ljust(512, b"\0"), "pax records that are damaged"),
    "pax for all": (header(b"p", 13, b"g") + b"13 path=a/bc\n".ljust(512, b"\0"), "for all members"),
    "no size": (None, "a header without a size"),
    "negative size": (None, "a header without a size"),
    "no name": (header(b"", 0), "the name ''"),
    "latin-1": (header("é.jpg".encode("latin-1"), 0), "is not UTF-8"),
    "escape": (header(b"\x1b[2J.jpg", 0), r"the name '\\x1b"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_are_refused(tmp_path, claim, packed):
    data, line = CLAIMS[claim]
    if data is None:
        block = bytearray(header(b"0.jpg", 0))
        block[124:136] = b"seven\0".ljust(12, b"\0") if claim == "no size" else b"\xff" * 12
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        data = bytes(block)
    data += bytes(1024)
    path = write(tmp_path, gzip.compress(data) if packed else data, "0.tar.gz" if packed else "0.tar")
    if packed and "claims" in line:
        line = "has .* bytes; at most|it ends within"
    with pytest.raises(InputError, match=line) as caught:
        list(read_tar(path))
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "nothing", "link to nothing"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = tmp_path / "0.tar"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "link to nothing":
        path.symlink_to(tmp_path / "gone")
    line = "no such file" if "nothing" in kind else f"it is a {kind}"
    with pytest.raises(InputError, match=line):
        list(read_tar(path))


def test_a_gzip_bomb_takes_no_memory(tmp_path):
    """A few kilobytes that claim a gigabyte and unpack to 64 MiB, in one member that is wanted and in one that is not."""
    packer = io.BytesIO()
    with gzip.GzipFile(fileobj=packer, mode="wb", compresslevel=1) as out:
        out.write(header(b"0.jpg", 1 << 30))
        for _ in range(4):
            out.write(bytes(1 << 24))
    path = write(tmp_path, packer.getvalue(), "bomb.tar.gz")
    program = (
        "import resource, sys\n"
        "from data_pipelines.layout.tar import read_tar\n"
        "from salmu_jax.runtime.errors import InputError\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for wanted in (lambda name: True, lambda name: False):\n"
        "    try: list(read_tar(sys.argv[1], wanted))\n"
        "    except InputError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    wanted, unwanted, used = done.stdout.splitlines()
    assert "1,073,741,824 bytes; at most 268,435,456 are read" in wanted
    assert "it ends within '0.jpg'" in unwanted
    assert int(used) * (1 if sys.platform != "darwin" else 1 / 1024) < 32 * 1024  # KiB
