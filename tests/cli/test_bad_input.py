"""What a user can get wrong: one line that says what and where, exit status 2, and nothing half-written."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def workdir(tmp_path):
    """A work directory that does not exist yet."""
    return tmp_path / "new"


@pytest.fixture
def world(bench, tmp_path):
    """A copy of the made world, to break: as somebody else's, without the digests of its files."""
    return shutil.copytree(bench[0] / "world", tmp_path / "world", ignore=shutil.ignore_patterns("world.json"))


def files_below(directory):
    """Every file below a directory with its size, but locks, and what is remembered of files that were read."""
    return {
        path.relative_to(directory): path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.name not in (".lock", "seen.json")
    }


# Configs and options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.train.epoch=3"], ["no field 'train.epoch'", "did you mean 'train.epochs'?"]),
        (["--config.train.epochs=many"], ["'train.epochs' is 'many'", "has to be a number"]),
        (["--config.train.batch_size=1.5"], ["'train.batch_size' is 1.5", "has to be a whole number"]),
        (["--config.unlearn.methods.erase.epochs=1.0"], ["unknown unlearning method 'erase'", "cliperase"]),
        (["--config.unlearn.methods.delete.epoch=1.0"], ["unlearn.methods.delete", "did you mean 'epochs'?"]),
        (["--config.unlearn.methods.delete.learning_rate=fast"], ["delete", "learning_rate", "number", "'fast'"]),
        (["--config.model.architecture=vit"], ["unknown architecture 'vit'"]),
        (["--config.model.compute_dtype=float8"], ["unknown dtype 'float8'", "float32 or bfloat16"]),
        (["--config.world.personas=2"], ["field 'world.personas' is 2", "has to be 4 to 5,000"]),
        (["--config.evaluate.idzsc_prompt=a person"], ["idzsc_prompt", "{name}"]),
    ],
)
def test_a_wrong_field_ends_bench_before_anything_is_made(salmu, workdir, arguments, words):
    salmu.run("bench", "--workdir", workdir, *arguments).assert_bad_input(*words)
    assert not workdir.exists() or not files_below(workdir)


def test_a_missing_config_file(salmu, workdir, tmp_path):
    finished = salmu.run("bench", "--workdir", workdir, config=tmp_path / "none.py")
    finished.assert_bad_input(tmp_path / "none.py", "no such config file", "configs/mini.py")
    assert not workdir.exists()


def test_a_config_file_that_fails(salmu, workdir, tmp_path):
    config = tmp_path / "wrong.py"
    config.write_text(
        "from salmu_jax.config import base_config\n\ndef get_config():\n    c = base_config()\n    c.epochs = 3\n"
    )
    salmu.run("bench", "--workdir", workdir, config=config).assert_bad_input(f"{config} line 5", "epochs")
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "--model", "delete"], ["unknown foundation model 'delete'", "clean, compromised"]),
        (["unlearn", "--config.unlearn.methods={}"], ["unlearn.methods and unlearn.runs: hold nothing to run", "NAME"]),
        (["unlearn", "--method", "erase"], ["unknown unlearning method 'erase'", "cliperase"]),
        (["evaluate", "--model", "nobody"], ["unknown model 'nobody'", "clean, compromised", "delete"]),
        (["evaluate", "--model", "../world"], ["unknown model '../world'"]),
        (["report", "--model", "nobody"], ["unknown model 'nobody'", "clean, compromised", "delete"]),
        (["evaluate", "--checkpoint", "somewhere"], ["--checkpoint", "--model NAME"]),
        (["evaluate", "--checkpoint", "/proc/nope", "--model", "x"], ["/proc/nope", "not a model directory"]),
        (["evaluate", "--checkpoint", "/proc/nope", "--model", "a/b"], ["'a/b'", "--model"]),
    ],
)
def test_an_unknown_name(salmu, run_copy, arguments, words):
    before = files_below(run_copy)
    salmu.run(*arguments, "--workdir", run_copy).assert_bad_input(*words)
    assert files_below(run_copy) == before


def test_an_unknown_stage_and_a_forgotten_config(salmu):
    for arguments, words in ((["train"], "invalid choice: 'train'"), (["bench"], "--config"), ([], "STAGE")):
        salmu.run(*arguments, config=None).assert_bad_input(words)


def test_a_batch_larger_than_the_data(salmu, run_copy):
    shutil.rmtree(run_copy / "models")
    before = files_below(run_copy)
    finished = salmu.run("pretrain", "--workdir", run_copy, "--config.train.batch_size=1000")
    finished.assert_bad_input("train.batch_size", "1000", "126")
    finished = salmu.run("pretrain", "--workdir", run_copy, "--config.train.warmup_steps=1000")
    finished.assert_bad_input("train.warmup_steps", "1,000 steps of warm-up", "train.epochs=4 passes over 126 pairs")
    finished = salmu.run("unlearn", "--workdir", run_copy, "--method", "delete")
    finished.assert_bad_input("salmu pretrain")
    assert not files_below(run_copy).keys() - before.keys()


def test_a_second_run_in_the_same_directory(salmu, run_copy):
    first = salmu.start("pretrain", "--workdir", run_copy, "--model", "clean", "--config.train.epochs=50000.0")
    try:
        first.wait_for(lambda: "pretrain clean: made again" in first.out.read_text())
        salmu.run("bench", "--workdir", run_copy).assert_bad_input(run_copy, "another salmu run", "'workdir'")
    finally:
        first.interrupt(9)
        assert first.wait().status == -9


# Worlds --------------------------------------------------------------------------------------------------------------


def rewrite(world, split, change):
    """Applies ``change`` to the rows (a list of dicts) of a split's parquet file, or to its table."""
    path = world / "data" / f"{split}-00000-of-00001.parquet"
    table = pq.read_table(path)
    changed = change(table)
    pq.write_table(changed, path)
    return path


def with_rows(change):
    def apply(table):
        rows = table.to_pylist()
        change(rows)
        return pa.Table.from_pylist(rows, schema=table.schema)

    return apply


def without_column(world):
    path = rewrite(world, "forget", lambda table: table.drop_columns(["identity_id"]))
    return path, "'identity_id'"


def caption_without_metadata(world):
    path = world / "sensitive_set_captions_metadata.json"
    captions = json.loads(path.read_text())
    row = pq.read_table(world / "data" / "forget-00000-of-00001.parquet").to_pylist()[5]
    del captions[row["file_name"]]
    path.write_text(json.dumps(captions))
    return "forget-00000-of-00001.parquet row 5", row["file_name"], "sensitive_set_captions_metadata.json"


def undecodable_image(world):
    def change(rows):
        rows[3]["image"]["bytes"] = rows[3]["image"]["bytes"][:100]

    path = rewrite(world, "holdout_identity", with_rows(change))
    return f"{path} row 3 field 'image'", "undecodable image"


def duplicate_file_name(world):
    def change(rows):
        rows[7]["file_name"] = rows[2]["file_name"]

    path = rewrite(world, "retain_synth", with_rows(change))
    return f"{path} row 7 field 'file_name'", "row 2", "unique"


def identity_in_the_wrong_split(world):
    moved = []
    rewrite(world, "forget", with_rows(lambda rows: moved.append(rows.pop())))
    path = rewrite(world, "holdout_identity", with_rows(lambda rows: rows.extend(moved)))
    return f"{path} row 18 field 'identity_id'", moved[0]["identity_id"], "also in forget"


def file_missing(world):
    (world / "identities_metadata.json").unlink()
    return world / "identities_metadata.json", "no such file"


def cut_short(world):
    path = world / "data" / "forget-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    return (path,)


@pytest.mark.parametrize(
    "breaking",
    [
        without_column,
        caption_without_metadata,
        undecodable_image,
        duplicate_file_name,
        identity_in_the_wrong_split,
        file_missing,
        cut_short,
    ],
)
def test_a_broken_world(salmu, world, workdir, breaking):
    words = breaking(world)
    salmu.run("build", "--world-dir", world, "--workdir", workdir).assert_bad_input(*words)
    assert not files_below(workdir)
    assert not (workdir / "datasets").exists()


def test_a_flipped_bit_in_a_made_world(salmu, bench, workdir, tmp_path):
    world = shutil.copytree(bench[0] / "world", tmp_path / "world")
    path = world / "retain" / "00000.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1  # in the first picture
    path.write_bytes(data)
    salmu.run("build", "--world-dir", world, "--workdir", workdir).assert_bad_input(
        world / "retain" / "00000.tar", "it is not as it was written", "run 'salmu generate' again"
    )
    assert not (workdir / "datasets").exists()


def test_several_problems_of_a_world_and_harmless_ones(salmu, world, workdir):
    path = world / "sensitive_set_captions_metadata.json"
    captions = json.loads(path.read_text())
    first, second, *_ = captions
    captions[first]["caption"] += "  "
    path.write_text(json.dumps(captions))
    finished = salmu.run("build", "--world-dir", world, "--workdir", workdir)
    assert finished.status == 0, finished.err
    *_, last, _ = finished.out.splitlines()  # behind it, how long it took
    assert "; let pass: captions that differ from sensitive_set_captions_metadata.json in white space (" in last
    salmu.run("build", "--world-dir", world, "--workdir", workdir, "--strict").assert_bad_input("refused with --strict")
    captions[first]["caption"] = captions[second]["data_field"] = "x"
    path.write_text(json.dumps(captions))
    finished = salmu.run("build", "--world-dir", world, "--workdir", workdir)
    assert finished.status == 2
    first_line, *lines = finished.err.splitlines()
    assert first_line == f"salmu: {world}: 2 problems; the images were not looked at yet"
    assert len(lines) == 2


def test_a_zero_shot_set_that_is_named_has_to_be_there(salmu, workdir, tmp_path):
    (tmp_path / "world").mkdir()
    salmu.run(
        "build", "--world-dir", tmp_path / "world", "--workdir", workdir, f"--config.zeroshot_dir={tmp_path / 'none'}"
    ).assert_bad_input("zeroshot_dir: no such directory", tmp_path / "none", "or none (--config.zeroshot_dir=)")


def test_no_world(salmu, workdir, tmp_path):
    salmu.run("build", "--world-dir", tmp_path / "none", "--workdir", workdir).assert_bad_input(tmp_path / "none")
    (tmp_path / "none").mkdir()
    for directory in (tmp_path / "none", "/proc"):  # of which nothing is read: the other one has no end
        salmu.run("build", "--world-dir", directory, "--workdir", workdir).assert_bad_input(
            f"{directory}/data: no such"
        )
    assert not files_below(workdir)


def test_no_zero_shot_set(salmu, world, workdir):
    salmu.run("build", "--world-dir", world, "--workdir", workdir, "--config.zeroshot_dir=/proc").assert_bad_input(
        "/proc"
    )
    assert not files_below(workdir)


# Checkpoints and data sets -------------------------------------------------------------------------------------------


def flip_a_bit(path):
    """Of the middle one among the bytes that are not 0 (array_record fills files up with zeros, which hold nothing)."""
    data = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(data) if byte]
    data[places[len(places) // 2]] ^= 0x10
    path.write_bytes(data)


def test_a_checkpoint_of_another_architecture(salmu, bench, run_copy):
    before = files_below(run_copy)
    checkpoint = bench[0] / "models" / "clean"
    finished = salmu.run(
        "evaluate",
        "--workdir",
        run_copy,
        "--checkpoint",
        checkpoint,
        "--model",
        "x",
        "--config.model.architecture=mini",
    )
    finished.assert_bad_input(checkpoint, "another architecture", "embed_dim is 16, not 64")
    assert files_below(run_copy) == before


def test_a_checkpoint_from_elsewhere_is_evaluated_under_its_name(salmu, bench, run_copy, results):
    checkpoint = bench[0] / "models" / "delete"
    finished = salmu.run("evaluate", "--workdir", run_copy, "--checkpoint", checkpoint, "--model", "mine")
    assert finished.status == 0, finished.err
    found = results(run_copy, provenance=False)
    rows = {**found["mine"]["rows"], "file": "delete.rows.npz"}
    assert {**found["mine"], "model": "delete", "rows": rows} == found["delete"]
    # Beside the model that it is a copy of it is refused; without it, it is on the board.
    finished = salmu.run("report", "--workdir", run_copy)
    finished.assert_bad_input("2 of 6 results do not verify (delete, mine)")
    assert "mine.json: it is of the same checkpoint as 'delete'" in finished.out
    (run_copy / "results" / "delete.json").unlink()
    finished = salmu.run("report", "--workdir", run_copy)
    assert finished.status == 0, finished.err
    assert "report: no result of delete; 'salmu evaluate' makes them" in finished.out
    assert any(line.startswith("DELETE (SALMU) ") for line in finished.out.splitlines())  # as its run record calls it
    finished = salmu.run("verify", run_copy / "results", config=None)
    assert finished.status == 0, finished.out


def test_clean_handed_in_as_a_method_is_refused(salmu, bench, run_copy):
    checkpoint = bench[0] / "models" / "clean"
    finished = salmu.run("evaluate", "--workdir", run_copy, "--checkpoint", checkpoint, "--model", "mine")
    assert finished.status == 0, finished.err
    salmu.run("report", "--workdir", run_copy).assert_bad_input("1 of 6 results do not verify (mine)")


def test_a_damaged_checkpoint(salmu, run_copy):
    (run_copy / "results" / "delete.json").unlink()
    directory = run_copy / "models" / "delete"
    arrays = max((directory / "params").rglob("d/*"), key=lambda path: path.stat().st_size)
    flip_a_bit(arrays)
    before = files_below(run_copy)
    salmu.run("evaluate", "--workdir", run_copy, "--model", "delete").assert_bad_input(directory)
    gone = before.keys() - files_below(run_copy).keys()
    assert {path.name for path in gone} <= {"evaluate-delete.json"}  # the record of the stage that has to run again
    assert not files_below(run_copy).keys() - before.keys()


@pytest.mark.parametrize("stage", ["pretrain", "evaluate"])
def test_a_damaged_data_set(salmu, run_copy, stage):
    shutil.rmtree(run_copy / "models" / "compromised")
    path = run_copy / "datasets" / "salmu" / "1.0.0" / "salmu-forget.array_record-00000-of-00001"
    flip_a_bit(path)
    model = "compromised" if stage == "pretrain" else "clean"
    salmu.run(stage, "--workdir", run_copy, "--model", model).assert_bad_input(path.name, "is not as it was written")
    assert not (run_copy / "models" / "compromised").exists()


# The disk ------------------------------------------------------------------------------------------------------------

GENERATE = ("generate", "world", ["--config.world.workers=2"])
BUILD = ("build", "datasets", [])
PRETRAIN = ("pretrain", "models/clean", ["--model", "clean"])
UNLEARN = pytest.param("unlearn", "models/delete", ["--method", "delete"], marks=pytest.mark.slow)
EVALUATE = ("evaluate", "results/clean.json", ["--model", "clean"])
REPORT = ("report", "report", [])


def unmake(run, output):
    """Takes the output of a stage away, so that the stage runs."""
    path = run / output
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize(("stage", "output", "arguments"), [GENERATE, BUILD, PRETRAIN])
def test_a_file_size_limit(salmu, run_copy, leftovers, stage, output, arguments):
    unmake(run_copy, output)
    finished = salmu.run(stage, "--workdir", run_copy, *arguments, file_limit=2_000)
    finished.assert_bad_input("ulimit -f", str(run_copy))
    assert not (run_copy / output).exists()
    assert not leftovers(run_copy)


@contextlib.contextmanager
def small_disk(path, size):
    """A file system of ``size`` bytes mounted at ``path``; skips where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    path.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, f"size={size}".encode()):
        pytest.skip(f"a small disk cannot be mounted here ({os.strerror(ctypes.get_errno())})")
    try:
        yield path
    finally:
        libc.umount2(os.fsencode(path), 2)  # MNT_DETACH


@pytest.mark.parametrize(
    ("stage", "output", "arguments"),
    [GENERATE, BUILD, PRETRAIN, UNLEARN, EVALUATE, REPORT],
)
def test_a_full_disk(salmu, bench, tmp_path, leftovers, stage, output, arguments):
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        run = shutil.copytree(bench[0], disk / "run")
        unmake(run, output)
        with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        with open(disk / "filler", "r+b") as filler:
            filler.truncate(max(0, os.path.getsize(disk / "filler") - 4096))  # room for a lock and a record
        finished = salmu.run(stage, "--workdir", run, *arguments)
        finished.assert_bad_input("no space left on the disk", str(run))
        assert not (run / output).exists()
        assert not leftovers(disk)
        assert not list(disk.glob(".salmu-*"))  # a method's directory lies beside the work directory
        (disk / "filler").unlink()
        assert salmu.run(stage, "--workdir", run, *arguments).status == 0


@pytest.mark.parametrize("stage", ["bench", "generate"])
def test_an_unwritable_directory(salmu, tmp_path, stage):
    (tmp_path / "file").write_text("")
    salmu.run(stage, "--workdir", tmp_path / "file" / "run").assert_bad_input(tmp_path / "file", "choose another")
    salmu.run(stage, "--workdir", tmp_path / "file").assert_bad_input(tmp_path / "file", "choose another")
    salmu.run(stage, "--workdir", "/proc/nope").assert_bad_input("/proc/nope")
    assert (tmp_path / "file").read_text() == ""
