"""A method in a user's own file: it needs no line anywhere else, and what is wrong with it is said in one line."""

from __future__ import annotations

import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.describe import describe_method
from salmu_jax.unlearning.method import Bound
from salmu_jax.unlearning.plan import make_plan
from salmu_jax.unlearning.user_methods import failures_of

METHOD = '''
from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from salmu_jax.unlearning.method import Method, option
from salmu_jax.unlearning.streams import Forget, Stream


@dataclasses.dataclass(frozen=True)
class Mine(Method):
    """Draws all captions to a point."""

    name: ClassVar[str] = "mine"
    title: ClassVar[str] = "My Method"
    reference: ClassVar[str] = "nobody, nowhere"
    formula: ClassVar[str] = "w sum_i |T_i|^2"
    streams: ClassVar[dict[str, Stream]] = {"forget": Forget(per_step=6)}

    weight: float = option(2.0, help="weight of the only term", low=0)

    def objectives(self, batch, model, reference, info):
        text = model.encode_text(batch["forget"].tokens)
        return {"far": self.weight * jnp.sum(text**2) + undefined}
'''


@pytest.fixture
def file(tmp_path):
    """A function that writes a file with some text replaced, and names the class in it."""

    def write(old="", new="", name="my_method.py", attribute="Mine"):
        assert old in METHOD
        (tmp_path / name).write_text(METHOD.replace(old, new, 1) if old else METHOD)
        return f"{tmp_path / name}:{attribute}"

    return write


def test_a_method_of_a_file_is_planned_and_described_like_any(file):
    name = file()
    plan = make_plan(name, {"options": {"weight": 3.0}, "epochs": 2}, 60, "unlearn.runs.mine")
    assert (plan.method.name, plan.method.weight, plan.sizes, plan.hyper.total_steps) == (
        "mine",
        3.0,
        {"forget": 6},
        20,
    )
    page = describe_method(name)
    for part in ("mine: My Method", "w sum_i |T_i|^2", "weight of the only term", "at least 0", "6 a step", "nowhere"):
        assert part in page
    assert "mine" not in registry.METHODS


def test_a_file_is_read_again_when_it_has_changed(file):
    assert registry.get(file()).weight == 2.0
    assert registry.get(file("option(2.0", "option(5.0")).weight == 5.0


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        (
            "import dataclasses",
            "import dataclases",
            "my_method.py line 4: ModuleNotFoundError: No module named 'dataclases'",
        ),
        ("class Mine(Method):", "class Mine(Method)", "my_method.py line 14: SyntaxError: expected ':'"),
        (
            "Forget(per_step=6)",
            "Forget(per_step=0)",
            "my_method.py line 21: per_step: must be a whole number of at least 1, not 0",
        ),
        (
            "class Mine(Method)",
            "class Mine(object)",
            "my_method.py: no method 'Mine', a subclass of Method, in it; it has none",
        ),
        (
            "class Mine(",
            "class Mein(",
            "my_method.py: no method 'Mine', a subclass of Method, in it; did you mean 'Mein'?",
        ),
        (
            "@dataclasses.dataclass(frozen=True)\n",
            "",
            "my_method.py: Mine has to be a frozen dataclass; write @dataclasses",
        ),
        ('= "mine"', '= "my method"', "my_method.py: Mine.name is 'my method'; letters, digits, '_', '-' and '.'"),
        (
            "    title: ClassVar",
            "    titel: ClassVar",
            "my_method.py: Mine.title has to be a text: title: ClassVar[str] =",
        ),
        ("streams: ClassVar[dict[str, Stream]] = {", "streams: ClassVar = (", "my_method.py line 21: SyntaxError: "),
        (
            '= {"forget": Forget(per_step=6)}',
            "= ()",
            "my_method.py: Mine.streams has to be a dictionary of streams, not ()",
        ),
    ],
)
def test_mistakes_in_a_file_are_answered_with_one_line(old, new, answer, file):
    with pytest.raises(InputError) as caught:
        registry.get(file(old, new))
    assert answer in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("nowhere.py:Mine", "nowhere.py: no such file"),
        ("nowhere.py", "nowhere.py: names no class; a method of a file is FILE.py:CLASS"),
        ("nowhere.py:", "names no class"),
        ("nowhere.py:a b", "names no class"),
    ],
)
def test_names_of_files_that_name_nothing(name, answer):
    with pytest.raises(InputError, match=answer):
        registry.get(name)


def test_a_failure_while_a_method_runs_names_its_line(file, table, info_of):
    method = registry.get(file())
    clip, params, reference_params, batch = table

    with pytest.raises(InputError) as caught, failures_of(method):
        method.objectives(batch, Bound(clip, params), Bound(clip, reference_params), info_of())
    assert str(caught.value).endswith("my_method.py line 27: NameError: name 'undefined' is not defined")
    # A failure elsewhere, and one in a method of the package, are bugs, and keep their traceback.
    with pytest.raises(ZeroDivisionError), failures_of(method):
        raise ZeroDivisionError
    with pytest.raises(AttributeError), failures_of(registry.get("delete")):
        registry.get("delete").objectives({}, None, None, None)
