"""Every mistake in a config or an override is one line; every right value comes through as it was meant."""

import json
import os
import re
import runpy
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from salmu_jax.commands import parse
from salmu_jax.config import base_config, identity_section, load_config, section, to_json
from salmu_jax.config_fields import declared
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.text import safe_text
from salmu_jax.unlearning.plan import make_plan

ROOT = Path(__file__).parents[1]
BASE = "from salmu_jax.config import base_config\n\n\ndef get_config():\n    config = base_config()\n"


def config_file(directory, *lines):
    path = directory / "run.py"
    path.write_text(BASE + "".join(f"    {line}\n" for line in lines) + "    return config\n")
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return config_file(tmp_path_factory.mktemp("config"))


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


FIELDS = dict(flat(base_config().to_dict()))
DECLARED = declared()


def error_of(path, *overrides):
    with pytest.raises(InputError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_config_is_the_base_config(plain):
    config = load_config(plain)
    assert to_json(config) == to_json(base_config())
    assert json.loads(json.dumps(to_json(config))) == to_json(config)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/[a-z]*.py")), ids=lambda path: path.stem)
def test_the_configs_of_the_repository_load(path):
    config = load_config(path)
    architecture(config.model.architecture)
    for method, fields in to_json(config.unlearn.methods).items():
        make_plan(method, fields, forget_pairs=30_468)
    assert config.to_dict() == runpy.run_path(str(path))["get_config"]().to_dict()


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("mini_twice", {"world.personas", "world.retain_joint"}),
        (
            "mini_pairs",
            {
                "world.personas",
                "world.pairs_per_association",
                "world.portrait_size",
                "world.retain_joint",
                "world.scenes",
                "train.epochs",
            },
        ),
    ],
)
def test_the_other_worlds_differ_from_mini_only_in_what_makes_them_so(name, differs):
    """A method that is measured on all of them has to meet the same model, seeds, evaluation and settings."""
    mini, other = (dict(flat(load_config(ROOT / "configs" / f"{one}.py").to_dict())) for one in ("mini", name))
    assert {field for field in mini | other if mini.get(field) != other.get(field)} == {"name", "workdir", *differs}
    assert other["models"] == ("clean", "compromised", "retrained")


def test_a_workstation_has_settings_of_its_own_and_a_pod_its_own():
    """Those of a pod cost a workstation minutes before its first step, and hours between two saved states."""
    workstation, pod = (load_config(ROOT / "configs" / f"{name}_vitb16.py") for name in ("unlearn", "clean"))
    assert (workstation.model.remat, workstation.model.scan_layers) == ("none", False)
    assert (pod.model.remat, pod.model.scan_layers) == ("full", True)
    assert workstation.data.workers == pod.data.workers == -1  # by what the machine has
    assert workstation.train.save_minutes <= 10  # unlearning saves by this clock, too
    assert workstation.unlearn.steps_per_call == 1
    assert workstation.world_dir.endswith("/salmubench-512-redistributed")
    assert pod.world_dir.endswith("/salmu-512-redistributed")  # which is enough to pretrain


def test_a_config_file_changes_what_it_names_and_nothing_else(tmp_path):
    config = load_config(config_file(tmp_path, "config.train.epochs = 3", "config.models = ['clean']"))
    assert config.train.epochs == 3.0
    assert isinstance(config.train.epochs, float)
    assert config.models == ("clean",)
    different = {field for field, value in flat(config.to_dict()) if value != FIELDS[field]}
    assert different == {"train.epochs", "models"}
    with pytest.raises(AttributeError, match="epochs"):  # what load_config returns is locked
        config.train.epohcs = 3.0


def test_fields_of_methods_pass_through_with_their_own_types(tmp_path):
    methods = {
        "cliperase": {"epochs": 2, "learning_rate": 1e-4, "freeze": ["visual/.*"], "options": {"forget": 2.0}},
        "finetuning": {},
    }
    config = load_config(config_file(tmp_path, f"config.unlearn.methods = {methods!r}"))
    assert to_json(config.unlearn.methods) == methods
    assert list(config.unlearn.methods) == ["cliperase", "finetuning"]
    assert type(config.unlearn.methods.cliperase.epochs) is int

    overrides = ["unlearn.methods.cliperase.epochs=0.5", "unlearn.methods.cliperase.options.forget=3"]
    overrides += ["unlearn.methods.finetuning.b1=0.5", "unlearn.methods.delete={}"]
    changed = to_json(load_config(tmp_path / "run.py", overrides).unlearn.methods)
    assert changed["cliperase"] == {**methods["cliperase"], "epochs": 0.5, "options": {"forget": 3}}
    assert changed["finetuning"] == {"b1": 0.5}
    assert changed["delete"] == {}


def test_an_override_with_a_group_replaces_the_group(tmp_path):
    path = config_file(tmp_path, "config.unlearn.methods = {'cliperase': {'epochs': 2, 'b1': 0.5}, 'finetuning': {}}")

    def methods(*overrides):
        return to_json(load_config(path, overrides).unlearn.methods)

    assert methods("unlearn.methods={}") == {}
    assert methods("unlearn.methods={}", "unlearn.methods.delete.epochs=1") == {"delete": {"epochs": 1}}
    assert methods("unlearn.methods.cliperase={'epochs': 3}") == {"cliperase": {"epochs": 3}, "finetuning": {}}
    assert methods("unlearn.methods.cliperase={}") == {"cliperase": {}, "finetuning": {}}
    assert methods("unlearn.methods.cliperase.b1.x=1", "unlearn.methods.cliperase.b1=2")["cliperase"]["b1"] == 2
    assert load_config(path, ["train={'epochs': 3}"]).train.epochs == 3.0
    assert "no field 'train.epohcs'" in error_of(path, "train={'epohcs': 3}")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("train.epohcs=3", "no field 'train.epohcs' in the config; did you mean 'train.epochs'?"),
        ("xyzzy=3", "no field 'xyzzy' in the config"),
        ("epochs=3", "did you mean 'train.epochs'?"),
        (
            "train=3",
            "'train' is a group of fields; set one of them with --config.train.FIELD=VALUE: b1, b2, batch_size, ",
        ),
        ("train={}", "'train' is a group of fields"),
        (
            "unlearn=3",
            "set one of them with --config.unlearn.FIELD=VALUE: cache_reference, evaluate_every, retain, sandbox, ",
        ),
        ("train.epochs.more=3", "'train.epochs' is a field (a number), not a group of fields; set it with"),
        ("train.epochs={'more': 3}", "set it with --config.train.epochs=VALUE"),
        ("workdir.x=1", "'workdir' is a field (a text), not a group of fields; set it with --config.workdir=VALUE"),
        ("models.0=clean", "'models' is a field (a tuple), not a group of fields"),
        ("unlearn.methodz.delete.epochs=3", "no field"),
        ("=3", "names no field; an override is --config.FIELD=VALUE"),
        ("train.=3", "names no field"),
        ("train..epochs=3", "names no field"),
        ("unlearn.methods..epochs=3", "names no field"),
        ("train.epochs", "an override is --config.FIELD=VALUE"),
        ("train.epochs=many", "field 'train.epochs' is 'many' (str), but has to be a number"),
        ("train.epochs=True", "field 'train.epochs' is True (bool), but has to be a number"),
        ("train.epochs=", "field 'train.epochs' is '' (str), but has to be a number"),
        ("train.epochs=nan", "has to be a number"),
        ("train.epochs=1e999", "field 'train.epochs' is inf, but has to be a finite number"),
        ("train.epochs=-1", "field 'train.epochs' is -1, but has to be above 0 and at most 1,000,000"),
        (f"train.epochs={'9' * 400}", "has to be a finite number"),
        ("train.batch_size=16.0", "field 'train.batch_size' is 16.0 (float), but has to be a whole number"),
        ("train.batch_size=true", "field 'train.batch_size' is True (bool), but has to be a whole number"),
        ("train.batch_size=0", "has to be at least 1"),
        ("train.steps_per_call=0", "has to be at least 1"),
        ("train.save_every=0", "has to be at least 1"),
        ("unlearn.save_every=-5", "has to be at least 1"),
        ("mesh.fsdp=0", "has to be at least 1"),
        ("seed=-1", "field 'seed' is -1, but has to be 0 to 4,294,967,295"),
        ("seed=4294967296", "has to be 0 to 4,294,967,295"),
        ("unlearn.seed=-1", "field 'unlearn.seed' is -1, but has to be 0 to 4,294,967,295"),
        ("evaluate.seed=1.5", "field 'evaluate.seed' is 1.5 (float), but has to be a whole number"),
        ("unlearn.sandbox=yes", "field 'unlearn.sandbox' is 'yes'; 'off' and 'on' are possible"),
        ("datasets_dir=gs://bucket/data", "field 'datasets_dir': is 'gs://bucket/data'; a directory or file of this"),
        ("unlearn.runs=3", "is 3, but has to be a group of fields, such as unlearn.runs.NAME.epochs=3"),
        (
            "unlearn.run.a.method=delete",
            "no field 'unlearn.run.a.method' in the config; did you mean 'unlearn.runs.RUN",
        ),
        (
            "evaluate.relearn_rates=(1e-4,)",
            'has to be 3 increasing numbers, each above 0, such as "(1e-06, 1e-05, 0.0001)"',
        ),
        ("evaluate.relearn_rates=(1e-4, 1e-3, 1e-3)", "has to be 3 increasing numbers"),
        ("evaluate.relearn_rates=(0, 1e-4, 1e-3)", "has to be 3 increasing numbers"),
        ("evaluate.relearn_rates=(1e-4, 1e-3, True)", "has to be 3 increasing numbers"),
        ("evaluate.relearn_rates=(1e-4, 1e-3, 1e999)", "has to be 3 increasing numbers"),
        ("evaluate.probes=('none',)", "field 'evaluate.probes' holds 'none'; 'indirect' and 'holdout_paraphrase' and"),
        ("evaluate.probe_form=all", "field 'evaluate.probe_form' is 'all'; 'short' and 'full' are possible"),
        ("data.augment=1", "field 'data.augment' is 1 (int), but has to be true or false"),
        ("models=clean", "field 'models' is 'clean' (str), but has to be a tuple"),
        ("models={[]: 1}", "has to be a tuple"),
        (
            "models=()",
            "field 'models' is empty; 'clean' and 'compromised' and 'retrained' are possible, written \"('clean', ",
        ),
        ("models=('clean')", "or \"('clean',)\" with its comma for one alone"),
        ("models=('clean', 'clean')", "with a name twice"),
        ("models=('clean', 'delete')", "field 'models' holds 'delete'"),
        ("models=(('clean',),)", "field 'models' holds ('clean',)"),
        (
            "unlearn.retain=(1,)",
            "field 'unlearn.retain' holds 1; 'salmu/retain_synth' and 'retain_pairs/train' are possible",
        ),
        ("unlearn.retain=('salmu/forget',)", "field 'unlearn.retain' holds 'salmu/forget'"),
        ("unlearn.retain=()", "field 'unlearn.retain' is empty"),
        ("train.b1=1", "field 'train.b1' is 1, but has to be at least 0 and below 1"),
        ("train.b2=1.0", "has to be at least 0 and below 1"),
        ("train.eps=0", "field 'train.eps' is 0, but has to be above 0"),
        ("train.epochs=0", "has to be above 0"),
        ("data.workers=-2", "field 'data.workers' is -2, but has to be -1 to 1,024"),
        ("data.workers=100000", "has to be -1 to 1,024"),
        ("evaluate.bootstrap=1000000000", "has to be 1 to 1,000,000"),
        ("workdir=", "field 'workdir': is empty, and a path is needed (a shell variable that is not set?)"),
        ("workdir= ", "field 'workdir': is empty"),
        (
            "workdir=gs://bucket/run",
            "field 'workdir': is 'gs://bucket/run'; a directory or file of this machine is needed",
        ),
        ("world_dir=s3:bucket", "field 'world_dir': is 's3:bucket'; a directory or file of this machine is needed"),
        ("workdir=a\x00b", "control characters ('\\x00') are in no path"),
        ("workdir=~nobody-of-this-name/run", "there is no such home directory"),
        ("train.state_dir=gs:/bucket/run", "a bucket is written gs://bucket/run"),
        ("train.state_dir=gcs:bucket", "a bucket is written gs://bucket"),
        ("train.state_dir=s3://", "a bucket is written s3://BUCKET/PATH"),
        ("train.state_dir=hdfs://x/y", "a directory or file of this machine is needed"),
        ("train.state_dir=file://host/x", "a directory is written /DIRECTORY or file:///DIRECTORY"),
        ("name=a\x1b[2J", "control characters and half characters are no text"),
        ("unlearn.methods=3", "is 3, but has to be a group of fields, such as unlearn.methods.NAME.epochs=3"),
        (
            "unlearn.methods.delete=3",
            "field 'unlearn.methods.delete' is 3, but has to be a group of fields, such as unlearn.methods.delete.epochs=3",
        ),
    ],
)
def test_wrong_overrides_are_answered_with_one_line(plain, override, complaint):
    message = error_of(plain, override)
    assert message.startswith(safe_text(f"--config.{override.strip()}").rstrip())
    assert complaint in message


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("bench --config a.py --config.train.epochs 3", "--config.train.epochs: an override is --config.FIELD=VALUE"),
        ("verify results --config.seed=3", "--config.seed=3: 'salmu verify' reads no config here"),
        ("import a.pt --output b --config.seed=3", "--config.seed=3: 'salmu import' reads no config here"),
    ],
)
def test_no_override_is_passed_over_in_silence(line, complaint):
    with pytest.raises(InputError, match=re.escape(complaint)):
        parse(line.split())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("config.train.epohcs = 3.0", r"run.py line 6: AttributeError: .*Did you mean \"epochs\""),
        ("config.train.batch_size = '16'", r"run.py line 6: TypeError: .*batch_size"),
        ("config.train = {'epohcs': 3.0}", r"run.py: no field 'train.epohcs' in the config; did you mean 'train.epoch"),
        (
            "config.train = {'batch_size': True}",
            r"run.py: field 'train.batch_size' is True \(bool\), but has to be a w",
        ),
        ("config.train = {'batch_size': 0}", r"run.py: field 'train.batch_size' is 0, but has to be at least 1"),
        ("config.train.learning_rate = float('nan')", r"run.py: field 'train.learning_rate' is nan, but has to be a f"),
        ("config.unlearn.methods = {'delete': 3}", r"run.py: field 'unlearn.methods.delete' is 3, but has to be a gro"),
        (
            "config.unlearn.runs = {'delete.v1': {'method': 'delete'}}",
            r"run.py line 6: ValueError: .* does not accept dots in field names .* the key delete.v1 contains one",
        ),
        ("1 / 0", r"run.py line 6: ZeroDivisionError: division by zero"),
        ("raise ValueError('a\\nb')", r"run.py line 6: ValueError: a b$"),
        ("raise SystemExit(3)", r"run.py line 6: SystemExit: 3"),
        ("import no_such_module", r"run.py line 6: ModuleNotFoundError: No module named 'no_such_module'"),
        ("if True print(3)", r"run.py line 6: SyntaxError: "),
        ("x = '", r"run.py line 6: SyntaxError: unterminated string"),
        ("return {'train': 3}", r"run.py: get_config\(\) returned a dict, not an ml_collections ConfigDict"),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(tmp_path, line, complaint):
    message = error_of(config_file(tmp_path, line))
    assert message.startswith(str(tmp_path))
    assert re.search(complaint, message), message


def test_a_config_imports_what_lies_beside_it(tmp_path, capsys):
    """As a script does; and another config gets another module of the same name."""
    for place, epochs in (("one", 3.0), ("two", 5.0)):
        (tmp_path / place / "towers").mkdir(parents=True)
        (tmp_path / place / "settings.py").write_text(f"EPOCHS = {epochs}\n")
        path = config_file(
            tmp_path / place, "from settings import EPOCHS", "print('loading')", "config.train.epochs = EPOCHS"
        )
        before = list(sys.path), sys.argv
        assert load_config(path).train.epochs == epochs
        assert (sys.path, sys.argv) == before
        assert "settings" not in sys.modules
    assert capsys.readouterr() == ("", "loading\n" * 2)  # standard output is the run's


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "def get_config(name):\n    return name\n",
            r"get_config\(\) has to take no arguments \(missing a required argument",
        ),
        ("import sys\nsys.exit()\n", "line 2: SystemExit"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0"),
        ("def get_config():\n    import sys\n    return len(sys.argv[1])\n", "line 3: IndexError"),
    ],
)
def test_a_config_that_takes_arguments_or_exits(tmp_path, text, complaint):
    (tmp_path / "run.py").write_text(text)
    assert re.search(complaint, error_of(tmp_path / "run.py"))


def test_paths_of_the_config_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = config_file(tmp_path, "config.workdir = '~/runs'")
    overrides = [
        "world_dir=~/world",
        "zeroshot_dir=~/imagenet",
        "retain_dir=~/retain",
        "train.state_dir=gcs://bucket/states/",
    ]
    config = load_config("~/run.py", overrides)
    assert (config.workdir, config.world_dir) == (f"{tmp_path}/runs", f"{tmp_path}/world")
    assert (config.zeroshot_dir, config.retain_dir) == (f"{tmp_path}/imagenet", f"{tmp_path}/retain")
    assert config.train.state_dir == "gs://bucket/states/"
    config = load_config(path, [f"workdir=file://{tmp_path}/a%20b", "train.state_dir=~/states"])
    assert (config.workdir, config.train.state_dir) == (f"{tmp_path}/a b", f"{tmp_path}/states")


def test_a_directory_whose_name_is_no_utf8_is_read_from_and_no_models_are_stored_in_it(plain, tmp_path, monkeypatch):
    """TensorStore would make a directory of another name."""
    latin = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    assert load_config(plain, [f"world_dir={latin}"]).world_dir == latin
    for field in ("workdir", "train.state_dir"):
        assert "models cannot be stored there; choose another one, or a link" in error_of(plain, f"{field}={latin}/run")
    os.mkdir(latin)
    monkeypatch.chdir(latin)
    assert "lies in a directory whose name is not UTF-8" in error_of(plain, "workdir=runs/mini")
    (tmp_path / "link").symlink_to(latin)
    monkeypatch.chdir(tmp_path)
    assert load_config(plain, ["workdir=link/run"]).workdir == "link/run"


def test_a_value_that_fails_when_it_is_read_is_answered_with_one_line(tmp_path):
    lines = ["from ml_collections import config_dict", "config.unlock()"]
    lines += ["config.name = config_dict.required_placeholder(str)"]
    assert "RequiredValueError" in error_of(config_file(tmp_path, *lines))


def test_a_failure_below_the_config_file_is_told_with_the_line_of_the_config_file(tmp_path):
    path = config_file(tmp_path, "import json", "json.loads('{')")
    assert "run.py line 7: JSONDecodeError" in error_of(path)
    path.write_text("def get_config():\n    return helper()\n\n\ndef helper():\n    return 1 / 0\n")
    assert "run.py line 6: ZeroDivisionError" in error_of(path)


def test_what_is_not_a_config_file_is_named(tmp_path):
    assert error_of(tmp_path / "none.py") == (
        f"{tmp_path}/none.py: no such config file; configs/mini.py is the one to start from"
    )
    assert error_of(tmp_path) == f"{tmp_path}: is a directory; name a config in it, such as configs/mini.py"
    assert error_of("/dev/null").startswith("/dev/null: is not a regular file; a config file is needed")
    for text in ("x = 3\n", "get_config = 3\n"):
        (tmp_path / "a.py").write_text(text)
        assert "it has no function get_config()" in error_of(tmp_path / "a.py")
    (tmp_path / "a.py").write_bytes(b"\x00\xff")
    assert "a.py" in error_of(tmp_path / "a.py")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_overrides_come_back(plain, data):
    chosen = data.draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True, max_size=4))
    wanted = {}
    for field in chosen:
        default = FIELDS[field]
        allowed = DECLARED[field].limits.allow if DECLARED[field].limits else lambda value: True
        if isinstance(default, bool):
            value = data.draw(st.booleans())
        elif isinstance(default, int):
            value = data.draw(st.integers(1, 1_000).filter(allowed))
        elif isinstance(default, float):
            value = data.draw((st.floats(1e-9, 1) | st.floats(1, 1e6) | st.integers(1, 10**6)).filter(allowed))
        elif isinstance(default, str) and DECLARED[field].choices:
            value = data.draw(st.sampled_from(DECLARED[field].choices))
        elif isinstance(default, str):
            value = data.draw(st.text("aé 日'\"({[=,", min_size=1).filter(str.strip))
        elif not DECLARED[field].choices:
            one = st.integers(1, 1_000) if isinstance(default[0], int) else st.floats(1e-9, 1e6)
            numbers = st.lists(one.filter(allowed), min_size=len(default), max_size=len(default), unique=True)
            value = tuple(sorted(data.draw(numbers)))
        else:
            choices, fewest = DECLARED[field].choices, int(not DECLARED[field].empty)
            value = tuple(data.draw(st.lists(st.sampled_from(choices), min_size=fewest, unique=True)))
        wanted[field] = value
    config = load_config(plain, [f"{field}={value}" for field, value in wanted.items()])
    found = dict(flat(config.to_dict()))
    assert found == {**FIELDS, **wanted}
    assert all(type(found[field]) is type(FIELDS[field]) for field in FIELDS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(sorted(FIELDS)) | st.text(max_size=8), text=st.text(max_size=8) | st.just("(" * 500))
def test_any_override_is_taken_or_answered_with_one_line(plain, field, text):
    found = complaint = None
    try:
        found = load_config(plain, [f"{field}={text}"])
    except InputError as error:
        complaint = str(error)
    if found is None:
        assert len(complaint.splitlines()) == 1
    else:
        assert {name: type(value) for name, value in flat(found.to_dict())} == {
            name: type(value) for name, value in FIELDS.items()
        }


def test_another_choice_of_probes_is_another_evaluation(plain):
    def identity(*overrides):
        return identity_section(load_config(plain, overrides), "evaluate")

    assert identity("evaluate.probes=()") != identity() != identity("evaluate.probe_form=full")
    assert identity("evaluate.probes=()")["evaluate"]["probes"] == []
    assert identity("evaluate.batch_size=3") == identity()


def test_sections_are_plain_values_that_follow_the_config(plain):
    config = load_config(plain, ["train.epochs=3"])
    part = section(config, "seed", "train", "models")
    assert list(part) == ["seed", "train", "models"]
    assert part["train"]["epochs"] == 3.0
    assert part["models"] == ["clean", "compromised"]
    assert not isinstance(part["train"], ConfigDict)
    json.dumps(part)


def test_a_run_is_the_same_run_on_other_hardware_and_not_with_other_fields():
    def identity(*overrides):
        config = load_config(ROOT / "configs" / "mini.py", overrides)
        return identity_section(config, "seed", "model", "data", "train", "mesh")

    same = (
        "mesh.fsdp=2", "mesh.tensor=2", "model.scan_layers=True", "model.remat=dots", "model.attention=plain",
        "model.kernels=plain", "data.workers=3",
        "data.cache_decoded=False", "train.loss_form=ring", "train.loss_chunk=7", "train.microbatch=8", "train.save_every=3",
        "train.save_minutes=3.5", "train.keep_last=5", "train.keep_every=50", "train.state_dir=gs://b/x",
        "train.evaluate_every=5",
    )  # fmt: skip
    other = ("seed=1", "train.epochs=3.0", "train.loss=sigmoid", "data.augment=True",
             "model.compute_dtype=bfloat16", "model.image_size=64")  # fmt: skip
    whole = identity()
    assert all(identity(override) == whole for override in same)
    assert len({json.dumps(identity(override)) for override in other} | {json.dumps(whole)}) == len(other) + 1
    assert "mesh" not in whole
    assert whole["train"]["batch_size"] == 160
