"""Zero-shot sets: our own round trip, the forms in which people have ImageNet, and faulty ones."""

from __future__ import annotations

import json
import shutil

import pytest
from released_form import jpeg
from tfds_form import write_tfds_imagenet

from data_pipelines.layout import LabelledImage, read_zeroshot, write_tar, write_zeroshot
from data_pipelines.layout.findings import Findings
from data_pipelines.layout.zeroshot import CLASS_NAMES, TEMPLATES
from salmu_jax.runtime.errors import InputError


@pytest.fixture
def zeroshot(tmp_path):
    write_zeroshot(
        tmp_path / "z",
        ["cat", "dog"],
        ["a photo of a {c}."],
        [LabelledImage("s0", b"one", 1), LabelledImage("s1", b"two", 0)],
    )
    return tmp_path / "z"


def test_round_trip(zeroshot):
    task = read_zeroshot(zeroshot)
    assert task.class_names == ("cat", "dog")
    assert task.templates == ("a photo of a {c}.",)
    assert list(task.images()) == [LabelledImage("s0", b"one", 1), LabelledImage("s1", b"two", 0)]
    assert list(task.images(images=False)) == [LabelledImage("s0", b"", 1), LabelledImage("s1", b"", 0)]


FAULTS = [
    (CLASS_NAMES, b"cat\n", "'s0.cls': '1' is not a class index; 0 to 0"),
    (CLASS_NAMES, b"\n", "classnames.txt: empty"),
    (CLASS_NAMES, None, "classnames.txt: no such file"),
    (CLASS_NAMES, b"cat\n\ndog\n", "classnames.txt line 2: a blank line"),
    (CLASS_NAMES, b"\ncat\ndog\n", "classnames.txt line 1: a blank line"),
    (CLASS_NAMES, b"cat\n \t\ndog", "classnames.txt line 2: a blank line"),
    (CLASS_NAMES, b"cat\rdog\r", "classnames.txt line 1: a control character (U+000D)"),
    (CLASS_NAMES, b"cat\ndo\x1b[31mg\n", "classnames.txt line 2: a control character (U+001B)"),
    (CLASS_NAMES, "cat\nchâteau".encode("latin-1"), "not UTF-8"),
    (TEMPLATES, b"a {c}\na photo\n", "templates.txt line 2: 'a photo' has no {c}"),
    (TEMPLATES, b"a {c}\n\nthe {c}\n", "templates.txt line 2: a blank line"),
    ("test/nshards.txt", b"many", "nshards.txt: 'many' is not a number"),
    ("test/nshards.txt", b"0", "nshards.txt: '0' is not a number"),
    ("test/nshards.txt", b"2", "1.tar: no such file"),
    ("test/nshards.txt", b"99999999999", "1.tar: no such file, though "),
    ("test/nshards.txt", b"9" * 5000, "is not a number of tar files"),
    ("test/1.tar", bytes(1024), "nshards.txt: 1 shards, but there is also '1.tar'"),
    ("test/extra.tar", bytes(1024), "but there is also 'extra.tar'"),
]


@pytest.mark.parametrize(("name", "content", "named"), FAULTS)
def test_faulty_sets(zeroshot, name, content, named):
    (zeroshot / name).unlink(missing_ok=True)
    if content is not None:
        (zeroshot / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(read_zeroshot(zeroshot).images())
    assert named in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("names", [b"\xef\xbb\xbfcat\r\ndog\r\n", b"cat\ndog", b"cat\ndog\n\n\n"])
def test_the_line_is_the_index_however_it_ends(zeroshot, names):
    (zeroshot / CLASS_NAMES).write_bytes(names)
    assert read_zeroshot(zeroshot).class_names == ("cat", "dog")


def test_names_keep_what_only_python_takes_for_a_line_end(zeroshot):
    (zeroshot / CLASS_NAMES).write_text("cat\u2028cat\ndog", encoding="utf-8")
    assert read_zeroshot(zeroshot).class_names == ("cat\u2028cat", "dog")


@pytest.mark.parametrize("label", ["-1", "2", "1.0", "one", "", "٣", "9" * 5000])
def test_labels_that_are_no_class(zeroshot, label):
    write_tar(zeroshot / "test" / "0.tar", [("s0.jpg", b"p"), ("s0.cls", label.encode())])
    with pytest.raises(InputError, match="is not a class index; 0 to 1 would be right"):
        list(read_zeroshot(zeroshot).images())


# ---- ImageNet, without the two lists --------------------------------------------------------------------------------


def labelled(count):
    return [(f"n{label:08d}.{kind}", b"%d" % label) for label in range(count) for kind in ("cls", "jpg", "json")]


def check_all(directory):
    """As the check does it: read the labels, and see whether every class occurs."""
    findings, counts = Findings(), {}
    task = read_zeroshot(directory, findings)
    for item in task.images(images=False, findings=findings):
        counts[item.label] = counts.get(item.label, 0) + 1
    task.check_labels(counts, directory)
    findings.raise_problems(directory)
    return task, findings


def test_timms_tars(tmp_path):
    members = labelled(1000)
    write_tar(tmp_path / "imagenet1k-validation-00.tar", members[:1500])
    write_tar(tmp_path / "imagenet1k-validation-01.tar", members[1500:])
    write_tar(tmp_path / "imagenet1k-train-0000.tar", [])
    (tmp_path / "README.md").write_text("ours")
    task, findings = check_all(tmp_path)
    assert (len(task.class_names), len(task.templates)) == (1000, 80)
    assert (task.class_names[0], task.class_names[999]) == ("tench", "toilet paper")
    assert task.templates[0] == "a bad photo of a {c}."
    assert all("{c}" in template for template in task.templates)
    images = list(task.images())
    assert [image.label for image in images] == list(range(1000))
    assert images[17] == LabelledImage("n00000017", b"17", 17)
    assert findings.oddities() == [f"files or folders that are not read ({tmp_path / 'imagenet1k-train-0000.tar'})"]


def test_timms_shards_are_counted(tmp_path):
    for number in (0, 2):
        write_tar(tmp_path / f"imagenet1k-validation-{number:02d}.tar", labelled(3))
    with pytest.raises(InputError, match="2 validation shards, but none numbered 1"):
        read_zeroshot(tmp_path)
    (tmp_path / "imagenet1k-validation-02.tar").rename(tmp_path / "imagenet1k-validation-01.tar")
    with pytest.raises(InputError, match=r"images of 3 classes and no classnames\.txt; .* \(none is of class 3\)"):
        check_all(tmp_path)
    names = [f"imagenet1k-validation-{number:02d}.tar" for number in range(3)]
    others = tmp_path / "others"
    others.mkdir()
    for number in range(11):  # numbered without zeros, so that 10 sorts before 2
        write_tar(others / f"my-val-{number}.tar", [])
    assert [path.name for path in read_zeroshot(others).shards] == [f"my-val-{number}.tar" for number in range(11)]
    info = tmp_path / "_info.json"
    info.write_text(json.dumps({"splits": {"validation": {"name": "validation", "filenames": names}}}))
    with pytest.raises(
        InputError, match=r"_info\.json: names 3 shards, but 'imagenet1k-validation-02\.tar' is not here"
    ):
        read_zeroshot(tmp_path)
    info.write_text(json.dumps({"splits": {"validation": {"filenames": names[:1]}}}))
    with pytest.raises(InputError, match=r"names 1|1 shards, but there is also 'imagenet1k-validation-01\.tar'"):
        read_zeroshot(tmp_path)
    info.write_text("[]")
    with pytest.raises(InputError, match=r"_info\.json: no splits\.validation\.filenames"):
        read_zeroshot(tmp_path)


@pytest.mark.parametrize("below", ["", "val"])
def test_a_folder_a_class(tmp_path, below):
    (tmp_path / CLASS_NAMES).write_text("tench\ngoldfish\n")
    (tmp_path / TEMPLATES).write_text("a {c}\n")
    for synset in ("n01443537", "n01440764"):  # made in another order than the classes'
        (tmp_path / below / synset).mkdir(parents=True)
        for number in (7, 3):
            (tmp_path / below / synset / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(synset.encode())
    (tmp_path / below / "n01440764" / "notes.xml").write_text("")
    task, findings = check_all(tmp_path)
    assert list(task.images()) == [
        LabelledImage("n01440764/ILSVRC2012_val_00000003", b"n01440764", 0),
        LabelledImage("n01440764/ILSVRC2012_val_00000007", b"n01440764", 0),
        LabelledImage("n01443537/ILSVRC2012_val_00000003", b"n01443537", 1),
        LabelledImage("n01443537/ILSVRC2012_val_00000007", b"n01443537", 1),
    ]
    assert "files or folders that are not read" in findings.oddities()[0]
    (tmp_path / CLASS_NAMES).write_text("tench\n")
    with pytest.raises(InputError, match="2 folders of images, but 1 class names"):
        read_zeroshot(tmp_path)


def test_a_thousand_folders_are_imagenets(tmp_path):
    from data_pipelines.layout import zeroshot as module

    synsets = (module._IMAGENET / "synsets.txt").read_text().split()
    for synset in synsets:
        (tmp_path / synset).mkdir()
        (tmp_path / synset / "a.JPEG").symlink_to("/dev/null")  # the labels are known without the images
    task, findings = check_all(tmp_path)
    assert task.class_names[synsets.index("n01440764")] == "tench"
    assert findings.oddities() == []
    assert [folder.name for folder in task.folders] == synsets
    names = (module._IMAGENET / "classnames.txt").read_text().splitlines()
    (tmp_path / CLASS_NAMES).write_text("\n".join(reversed(names)))
    (tmp_path / TEMPLATES).write_text("a {c}\n")
    folders = check_all(tmp_path)[0].folders
    assert [names[synsets.index(folder.name)] for folder in folders] == names[::-1]
    assert len(set(folders)) == 1000
    (tmp_path / CLASS_NAMES).unlink()
    (tmp_path / TEMPLATES).unlink()
    (tmp_path / synsets[5]).rename(tmp_path / "n99999999")
    assert (
        "folders that are called neither by class names, nor as ImageNet's classes"
        in check_all(tmp_path)[1].oddities()[0]
    )
    with pytest.raises(InputError, match="it is a device"):
        list(task.images())


def folders_of(directory, folders, names=()):
    """The names of the folders in the order of their labels, and what is said about them."""
    for name in folders:
        (directory / name).mkdir(parents=True)
        (directory / name / "a.JPEG").symlink_to("/dev/null")
    if names:
        (directory / CLASS_NAMES).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        (directory / TEMPLATES).write_text("a {c}\n")
    task, findings = check_all(directory)
    return [folder.name for folder in task.folders], findings.oddities()


def test_numbered_folders_are_in_the_order_of_their_numbers(tmp_path):
    numbers = [str(number) for number in range(1000)]
    assert folders_of(tmp_path / "plain", numbers) == (numbers, [])
    padded = [f"{number:04d}" for number in range(1000)]
    assert folders_of(tmp_path / "padded", padded) == (padded, [])
    eleven = numbers[:11]
    assert folders_of(tmp_path / "eleven", eleven, [f"thing {number}" for number in eleven]) == (eleven, [])


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["1", "2", "10", "11"], "'1' is where 0"),
        (["0", "1", "3", "4"], "'3' is where 2"),
        (["0", "1", "01", "2"], "is where 2"),
    ],
)
def test_numbers_that_are_no_class_indices_are_refused(tmp_path, folders, named):
    with pytest.raises(InputError, match=f"folders called by numbers, but not by 0 to 3, .*{named} would be right"):
        folders_of(tmp_path, folders, ["cat", "dog", "owl", "cow"])


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["dog", "owl", "cat"], ["owl", "cat", "dog"]),
        (["2", "10", "1", "11"], ["10", "1", "11", "2"]),
        (["great_white_shark", "Tench"], ["tench", "great white shark"]),
        (["n01440764", "n01484850"], ["great white shark", "tench"]),
        (["n01440764", "n01484850"], ["n01484850", "n01440764"]),
    ],
)
def test_folders_map_to_classes_by_name(tmp_path, folders, names):
    found, oddities = folders_of(tmp_path, folders, names)
    assert oddities == []
    synsets = {"n01440764": "tench", "n01484850": "great white shark"}
    assert [name if name in names else synsets.get(name, name.lower().replace("_", " ")) for name in found] == names


def test_folders_that_are_no_classes(tmp_path):
    with pytest.raises(
        InputError, match=r"cow: not in classnames\.txt, though other folders are called by class names"
    ):
        folders_of(tmp_path / "one", ["dog", "cow"], ["owl", "dog"])
    found, (line,) = folders_of(tmp_path / "none", ["y", "x"], ["owl", "dog"])
    assert found == ["x", "y"]
    assert "called neither by class names" in line


def test_forms_without_labels_are_explained(tmp_path):
    with pytest.raises(InputError, match=r"no images; test/nshards\.txt"):
        read_zeroshot(tmp_path)
    (tmp_path / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    with pytest.raises(InputError, match="side by side have no labels; a folder a class is needed"):
        read_zeroshot(tmp_path)
    (tmp_path / "ILSVRC2012_val_00000001.JPEG").rename(tmp_path / "ILSVRC2012_img_val.tar")
    with pytest.raises(InputError, match=r"'ILSVRC2012_img_val\.tar' is not a validation shard"):
        read_zeroshot(tmp_path)


def test_cached_snapshots_are_links(tmp_path, zeroshot):
    """The cache of the hub: every file a link to a blob."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123abcd"
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in zeroshot.rglob("*") if p.is_file())):
        place = snapshot / path.relative_to(zeroshot)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / f"{number:064x}")
        place.symlink_to(blobs / f"{number:064x}")
    assert len(list(read_zeroshot(snapshot).images())) == 2
    (blobs / f"{1:064x}").unlink()
    with pytest.raises(InputError, match="no such file"):
        list(read_zeroshot(snapshot).images())


# ---- as TFDS builds ImageNet ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def imagenet2012(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds") / request.param
    return write_tfds_imagenet(directory, request.param), request.param


def test_imagenet_of_tfds_is_read_from_its_directory_its_name_or_its_version(imagenet2012):
    directory, _ = imagenet2012
    for given in (directory, directory / "imagenet2012", directory / "imagenet2012" / "5.1.0"):
        task = read_zeroshot(given)
        assert (len(task.class_names), len(task.templates), task.known) == (1000, 80, True)
        assert len(task.files()) == 3
    images = list(task.images())
    assert [image.label for image in images] != sorted(image.label for image in images)  # TFDS has shuffled them
    by_label = sorted(images, key=lambda image: image.label)
    assert [image.key for image in by_label] == [f"ILSVRC2012_val_{index + 1:08d}" for index in range(1000)]
    assert [image.image for image in by_label[:7]] == [jpeg(index % 6, 40, 32) for index in range(7)]
    assert (task.class_names[0], task.class_names[999]) == ("tench", "toilet paper")
    assert {image.image for image in task.images(images=False)} == {b""}


def copied(imagenet2012, tmp_path):
    directory, form = imagenet2012
    shutil.copytree(directory, tmp_path / "copy")
    folder = tmp_path / "copy" / "imagenet2012" / "5.1.0"
    return folder, folder / f"imagenet2012-validation.{form}-00001-of-00003"


def test_a_shard_of_tfds_that_is_not_there_or_cut_short_is_named(imagenet2012, tmp_path):
    folder, shard = copied(imagenet2012, tmp_path)
    data = shard.read_bytes()
    for keep in (0, 7, len(data) // 2, len(data) - 3):
        shard.write_bytes(data[:keep])
        with pytest.raises(InputError, match="00001-of-00003"):
            list(read_zeroshot(folder).images())
    shard.unlink()
    with pytest.raises(InputError, match=r"names 3 shards, but imagenet2012-validation.*00001-of-00003 is not here"):
        read_zeroshot(folder)


def test_a_flipped_bit_in_the_length_of_a_tfrecord_is_found(tmp_path):
    folder = write_tfds_imagenet(tmp_path) / "imagenet2012" / "5.1.0"
    shard = folder / "imagenet2012-validation.tfrecord-00000-of-00003"
    data = bytearray(shard.read_bytes())
    for place in range(12):
        data[place] ^= 4
        shard.write_bytes(data)
        with pytest.raises(InputError, match=r"damaged at byte 0 \(the length of a record\)"):
            list(read_zeroshot(folder).images())
        data[place] ^= 4


@pytest.mark.parametrize(
    ("name", "before", "after", "said"),
    [
        ("label.labels.txt", "n01440764", "n99999999", "1,000 classes, such as 'n99999999'; ImageNet's WordNet ids"),
        ("label.labels.txt", "n01440764\n", "", "999 classes"),
        ("dataset_info.json", '"validation"', '"evaluation"', "the splits train, evaluation; 'validation' is needed"),
        ("dataset_info.json", '"tfrecord"', '"riegeli"', "files of the form 'riegeli'; tfrecord or array_record"),
        ("dataset_info.json", '"shardLengths"', '"lengths"', "not as TFDS writes it"),
        ("dataset_info.json", '"334"', '"335"', r"334 records; dataset_info\.json says 335"),
    ],
)
def test_a_description_of_tfds_that_does_not_fit_is_refused(tmp_path, name, before, after, said):
    folder = write_tfds_imagenet(tmp_path) / "imagenet2012" / "5.1.0"
    text = (folder / name).read_text()
    assert before in text
    (folder / name).write_text(text.replace(before, after))
    with pytest.raises(InputError, match=said):
        list(read_zeroshot(folder).images())


def test_imagenet_of_tfds_in_another_order_of_classes_gets_our_indices(tmp_path):
    folder = write_tfds_imagenet(tmp_path) / "imagenet2012" / "5.1.0"
    path = folder / "label.labels.txt"
    path.write_text("\n".join(reversed(path.read_text().split())))
    found = {image.key: image.label for image in read_zeroshot(folder).images()}
    assert found["ILSVRC2012_val_00000001"] == 999
    assert found["ILSVRC2012_val_00000998"] == 2
