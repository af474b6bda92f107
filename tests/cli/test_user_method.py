"""A method in a user's own file, by the command alone: its model, its code's digest, and its failing line."""

from __future__ import annotations

import hashlib
import json

METHOD = '''
from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Method, option


@dataclasses.dataclass(frozen=True)
class Shrink(Method):
    """Makes all weights smaller."""

    name: ClassVar[str] = "shrink"
    title: ClassVar[str] = "Shrinking"
    reference: ClassVar[str] = "nobody, nowhere"
    formula: ClassVar[str] = "theta = s theta_0"
    defaults: ClassVar[Hyper] = Hyper(epochs=0, total_steps=0)

    scale: float = option(0.9, help="how much smaller", low=0, high=1)

    def finish(self, params, reference_params, prepared):
        return jax.tree.map(lambda leaf: leaf * self.scale, params)
'''


def test_a_method_of_a_users_file_makes_a_model_and_an_edit_makes_it_again(salmu, run_copy, tmp_path):
    file = tmp_path / "shrinking.py"
    file.write_text(METHOD)
    unlearn = ("unlearn", "--method", f"{file}:Shrink", "--workdir", run_copy)
    made = salmu.run(*unlearn)
    assert made.status == 0, made.err
    manifest = json.loads((run_copy / "models" / "shrinking" / "manifest.json").read_text())
    run = manifest["run"]
    assert (run["name"], run["method"], run["title"]) == ("shrinking", "shrinking.py:Shrink", "Shrinking")
    assert (run["options"], run["code"]) == ({"scale": 0.9}, hashlib.sha256(file.read_bytes()).hexdigest())
    assert manifest["steps"] == 0

    file.write_text(METHOD.replace("leaf * self.scale", "leaf * self.scale / 2"))
    again = salmu.run(*unlearn)
    assert again.status == 0, again.err
    assert f"changed since {run_copy}/models/shrinking was made: code shrinking.py\n" in again.out
    assert json.loads((run_copy / "models" / "shrinking" / "manifest.json").read_text())["digest"] != manifest["digest"]


def test_a_users_file_that_fails_is_named_with_its_line(salmu, run_copy, tmp_path):
    file = tmp_path / "shrinking.py"
    line = METHOD.splitlines().index("import jax") + 1
    file.write_text(METHOD.replace("import jax", "import jax.nothing", 1))
    failed = salmu.run("unlearn", "--method", f"{file}:Shrink", "--workdir", run_copy)
    failed.assert_bad_input(f"{file} line {line}: ModuleNotFoundError: No module named 'jax.nothing'")
    file.write_text(METHOD.replace("leaf * self.scale", "leaf * self.scalee"))
    line = METHOD.splitlines().index("        return jax.tree.map(lambda leaf: leaf * self.scale, params)") + 1
    failed = salmu.run("unlearn", "--method", f"{file}:Shrink", "--workdir", run_copy)
    failed.assert_bad_input(f"{file} line {line}: AttributeError: 'Shrink' object has no attribute 'scalee'")
    assert not (run_copy / "models" / "shrinking").exists()
