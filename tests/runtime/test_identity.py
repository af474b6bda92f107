"""An edit of any code that an output depends on is seen and named; comments, docstrings and other methods are not."""

import gzip
import shutil

import pytest

from salmu_jax.runtime import identity
from salmu_jax.runtime.identity import Identity, changes, code

METHOD = "salmu_jax.unlearning.methods.cliperase"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the packages, to edit."""
    root = tmp_path_factory.mktemp("checkout")
    for package in ("salmu_jax", "data_pipelines"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(identity.ROOT / package, root / package, ignore=ignored)
    return root


def edited(root, file, old, new):
    """The code of all stages before and after an edit, which is undone: ``{stage: [files that differ]}``."""
    stages = {stage: (stage, METHOD) if stage == "unlearn" else (stage,) for stage in identity._STAGES}
    before = {stage: code(*words, root=root) for stage, words in stages.items()}
    path = root / file
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new))
    after = {stage: code(*words, root=root) for stage, words in stages.items()}
    path.write_bytes(whole)
    return {stage: changes({"code": before[stage]}, {"code": after[stage]}) for stage in stages}


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("salmu_jax/unlearning/methods/cliperase.py", b"option(1.0", b"option(5.0", {"unlearn"}),
        ("salmu_jax/unlearning/methods/delete.py", b"return {", b"return  {", set()),
        ("salmu_jax/unlearning/losses.py", b"jnp.", b"np.", {"unlearn"}),
        ("salmu_jax/evaluation/retrieval.py", b"return ", b"return 0 * ", {"evaluate"}),
        ("salmu_jax/models/tokenizer.py", b"lower()", b"upper()", {"pretrain", "unlearn", "evaluate"}),
        ("salmu_jax/models/preprocess.py", b"BICUBIC", b"BILINEAR", {"pretrain", "unlearn", "evaluate", "report"}),
        ("salmu_jax/training/loss.py", b"jnp.", b"np.", {"pretrain", "unlearn"}),
        ("salmu_jax/report/templates/index.html", b"<h1>", b"<h1 id='top'>", {"report"}),
        ("data_pipelines/order.py", b"return ", b"return 1 + ", {"pretrain", "unlearn"}),
        ("data_pipelines/builders/salmu.py", b"return", b"yield", {"build"}),
        ("data_pipelines/world/faces.py", b"0.5", b"0.6", {"generate"}),
        ("salmu_jax/cli.py", b"2", b"3", set()),
        ("salmu_jax/runtime/progress.py", b"return", b"yield", set()),
    ],
)
def test_an_edit_is_seen_by_the_stages_that_run_the_code_and_named(checkout, file, old, new, stages):
    found = edited(checkout, file, old, new)
    assert {stage for stage, changed in found.items() if changed} >= stages
    if not stages:
        assert found == {stage: [] for stage in found}
    for stage in stages:
        assert found[stage] == [f"code {file}"]


def test_a_changed_tokenizer_merge_is_seen(checkout):
    file = "salmu_jax/models/data/bpe_simple_vocab_16e6.txt.gz"
    whole = (checkout / file).read_bytes()
    text = gzip.decompress(whole).replace(b"i n\n", b"n i\n", 1)
    found = edited(checkout, file, whole, gzip.compress(text))
    assert {stage for stage, changed in found.items() if changed == [f"code {file}"]} == {
        "generate full",  # captions are counted in tokens
        "build",  # so are those of retain pairs
        "pretrain",
        "unlearn",
        "evaluate",
    }


def test_a_users_file_counts_by_its_name_with_what_it_imports_of_the_packages(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from salmu_jax.unlearning.methods.cliperase import CLIPErase\nimport json\n")
    found = code("unlearn", files_of_users=[file])
    assert found.keys() - code("unlearn").keys() >= {"mine.py", "salmu_jax/unlearning/methods/cliperase.py"}
    file.write_text(file.read_text() + "# nothing more\n")
    assert code("unlearn", files_of_users=[file]) == found
    file.write_text(file.read_text() + "x = 3\n")
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / "mine.py")
    assert changes({"code": found}, {"code": code("unlearn", files_of_users=[moved])}) == ["code mine.py"]


def test_comments_docstrings_and_layout_are_no_code(checkout):
    path = checkout / "salmu_jax" / "training" / "loss.py"
    whole = path.read_bytes()
    added = whole.replace(b"\ndef ", b"\n\n# a comment\ndef ").replace(b'"""', b'"""Edited. ', 1)
    assert added != whole
    found = edited(checkout, "salmu_jax/training/loss.py", whole, added)
    assert found == {stage: [] for stage in found}


def test_what_changed_is_said_in_words():
    old = {
        "method": {"name": "x", "forgetting_weight": 1.0},
        "data": {"salmu": "a" * 64},
        "code": {"b.py": "1", "c.py": "2"},
    }
    new = {
        "method": {"name": "x", "forgetting_weight": 5.0},
        "data": {"salmu": "b" * 64},
        "code": {"b.py": "1", "d.py": "2"},
    }
    assert Identity(new).changes(old) == [
        "data.salmu aaaaaaaa -> bbbbbbbb",
        "method.forgetting_weight 1.0 -> 5.0",
        "code c.py",
        "code d.py",
    ]
    assert changes(new, new) == []
    empty, filled = {"environment": {}, "seed": 1}, {"environment": {"XLA_FLAGS": "--a"}, "seed": 1}
    assert changes(empty, filled) == ["environment.XLA_FLAGS none -> --a"]
    assert changes(filled, empty) == ["environment.XLA_FLAGS --a -> none"]
    assert changes({"seed": 1}, empty) == ["environment none -> {}"]
    assert Identity(new).digest != Identity(old).digest
    assert Identity(dict(reversed(new.items()))).digest == Identity(new).digest


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("salmu_jax/unlearning/methods/cliperase.py", "from ..helper import LIMIT"),
        ("salmu_jax/unlearning/methods/cliperase.py", "from .. import helper"),
        ("salmu_jax/unlearning/methods/cliperase.py", "def later():\n    from ...unlearning import helper"),
        ("salmu_jax/unlearning/methods/cliperase.py", "from ..between import helper"),
    ],
)
def test_relative_imports_are_followed(checkout, module, says):
    """A module beside the methods, in each form of import; the last one goes through a package's own ``__init__``."""
    helper = checkout / "salmu_jax" / "unlearning" / "helper.py"
    between = checkout / "salmu_jax" / "unlearning" / "between" / "__init__.py"
    between.parent.mkdir(exist_ok=True)
    between.write_text("from .. import helper\n")
    helper.write_text("LIMIT = 1\n")
    path = checkout / module
    whole = path.read_text()
    path.write_text(f"{whole}\n\n{says}\n")
    try:
        found = edited(checkout, "salmu_jax/unlearning/helper.py", b"1", b"2")
    finally:
        path.write_text(whole)
    assert {stage for stage, changed in found.items() if changed} == {"unlearn"}
    assert found["unlearn"] == ["code salmu_jax/unlearning/helper.py"]


@pytest.mark.parametrize(
    "says",
    [
        'Path(__file__).with_name("weights.json")',
        'importlib.resources.files(__package__) / "weights.json"',
        'pkgutil.get_data(__name__, "weights.json")',
    ],
)
def test_data_files_beside_a_method_that_reads_them_are_code(checkout, says):
    file = "salmu_jax/unlearning/methods/weights.json"
    (checkout / file).write_text("[1]")
    assert edited(checkout, file, b"1", b"2") == {stage: [] for stage in identity._STAGES}  # nobody reads it
    path = checkout / "salmu_jax" / "unlearning" / "methods" / "cliperase.py"
    whole = path.read_text()
    path.write_text(f"{whole}\n\nWEIGHTS = {says}\n")
    try:
        found = edited(checkout, file, b"1", b"2")
    finally:
        path.write_text(whole)
        (checkout / file).unlink()
    assert {stage: changed for stage, changed in found.items() if changed} == {"unlearn": [f"code {file}"]}
