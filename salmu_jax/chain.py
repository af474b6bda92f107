"""Checks the chain data -> parent -> model -> result: a stage trusts nothing that it reads.

Every output records the digests of its inputs. Before a stage reads an output, it compares it with these records: files by
their contents, a model by its name, data and parent. What does not match is refused in one line, which names the command that
makes it again; that command sees the same difference, and makes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from salmu_jax import config as config_lib
from salmu_jax import foundation
from salmu_jax.foundation import COMPROMISED
from salmu_jax.runtime import contents, distributed, files, host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import code
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.workspace import Workspace
from salmu_jax.unlearning import view
from salmu_jax.unlearning.runs import Run
from salmu_jax.unlearning.selectors import Selector

Describe = Callable[[Run], Mapping[str, Any]]
_UNBUILT = 1_000_000  # forget pairs that a run is checked with before the data sets are built


class Chain:
    """Computes what each stage's output is made from, and checks the inputs of the stages of a workspace.

    Process 0 reads, and all processes get its answer.
    """

    def __init__(self, workspace: Workspace, runs: Mapping[str, Run], describe: Describe):
        """``runs`` are those of the config; ``describe(run)`` describes the method of a run, in a process of its own."""
        self.workspace = workspace
        self.config = workspace.config
        self.currency = workspace.currency
        self.runs = runs
        self._describe = describe
        self._columns: dict[str, list[str]] | None = None

    def world(self) -> str:
        """Returns the digest of the world's contents."""
        return distributed.from_main(self._world)

    def foreign(self, directory: Path) -> str:
        """Returns the digest of the contents of a directory without our manifest."""
        return distributed.from_main(lambda: self._foreign(directory))

    def _foreign(self, directory: Path) -> str:
        return self.currency.foreign_digest(directory, without=self.workspace.outputs)

    def _world(self) -> str:
        workspace = self.workspace
        if not os.path.lexists(workspace.world / "world.json"):
            return self._foreign(workspace.world)
        if damage := self.currency.damage(workspace.world):
            return files.sha256_json(damage)  # differs from any other, so the build runs, and says what is wrong
        held = contents.read_contents(workspace.world)
        more = [name for name in contents.strays(workspace.world) or () if name.endswith((".parquet", ".tar"))]
        paths = {name: workspace.world / name for name in more}  # a zero-shot set refuses one that is not counted
        digests = {name: files.sha256_file(path) if path.is_file() else "no file" for name, path in paths.items()}
        return files.sha256_json([contents.contents_digest(held), digests])

    def data(self, *names: str) -> dict[str, str | None]:
        """Compares the files of built data sets, and returns their digests by name, None for one that is absent.

        Raises InputError, naming the files, if they are not as ``build`` wrote them.
        """
        workspace = self.workspace

        def check() -> dict[str, str | None]:
            need(workspace.datasets, "salmu build")
            if damage := self.currency.damage(workspace.datasets, *names):
                raise InputError(f"{listed(damage)}; 'salmu build' makes it again", workspace.datasets)
            if not self.currency.made_here("build", workspace.datasets):
                raise InputError(
                    "holds other data than 'salmu build' made here; 'salmu build' makes it again", workspace.datasets
                )
            return contents.data_digests(contents.read_contents(workspace.datasets))

        digests = distributed.from_main(check)
        return {name: digests[name] for name in names}

    def imported(self, name: str) -> bool:
        """Returns whether a model of the workspace was imported, so that no stage makes it."""
        return distributed.from_main(lambda: "source" in self._manifest(name))

    def _manifest(self, name: str) -> dict[str, Any]:
        """Returns the manifest of a model of this workspace; an empty one if it is not there or cannot be read."""
        try:
            manifest = files.read_json(self.workspace.model(name) / "manifest.json")
        except (OSError, InputError):
            return {}
        return manifest if isinstance(manifest, dict) else {}

    def trusted(self, name: str, data: Mapping[str, str | None]) -> dict[str, Any]:
        """Checks that a model of this workspace is the one that its stage made, and returns its manifest.

        Raises InputError if it is missing, damaged, another model, or made from other ``data`` or another parent.
        """
        return distributed.from_main(lambda: self._trusted(name, data))

    def _trusted(self, name: str, data: Mapping[str, str | None]) -> dict[str, Any]:
        from salmu_jax.training.checkpoint import read_manifest

        workspace = self.workspace
        directory = workspace.model(name)
        stage = f"pretrain {name}" if name in foundation.NAMES else f"unlearn {name}"
        command = self.command(name)
        of_others = self.config.world_dir and name in foundation.NAMES  # published models belong to published data
        need(directory, command, f"or 'salmu import FILE --as {name}'" if of_others else "")
        manifest = read_manifest(directory)
        imported = "source" in manifest
        problems = self.currency.damage(directory) if "files" in manifest else []
        if not imported:
            if not problems and not self.currency.made_here(stage, directory, manifest.get("identity")):
                problems.append(f"is not the model that '{stage}' made here")
            if manifest.get("name") != name:
                problems.append(f"its manifest names the model {manifest.get('name')!r}, not {name!r}")
            made = manifest.get("data") if isinstance(manifest.get("data"), dict) else {}
            problems += [f"was made of other data ({key})" for key in data if key in made and made[key] != data[key]]
            if name in foundation.NAMES:
                config = manifest.get("config") if isinstance(manifest.get("config"), dict) else {}
                seed = config.get("seed", self.config.seed)
                if seed != self.config.seed:
                    problems.append(f"was trained with the seed {seed}, not {self.config.seed}")
            elif parent := self._other_parent(manifest):
                problems.append(f"was made of another {_shown(parent)} than models/{parent}")
        if problems:
            again = "import it again" if imported else f"'{command}' makes it again"
            raise InputError(f"{listed(problems, separator='; ')}; {again}", directory)
        return manifest

    def _other_parent(self, manifest: Mapping[str, Any]) -> str | None:
        """Returns the nearest ancestor that has been replaced by another model of its name; None if there is none."""
        seen = set()
        while manifest.get("parent") and (name := parent_name(manifest)) not in seen:
            seen.add(name)
            here = self._manifest(name)
            if here and here.get("digest") != manifest["parent"]:
                return name
            manifest = here
        return None

    def run(self, name: str) -> Run | None:
        """Returns the run that makes a model: the config's, or else the one recorded in the present model."""
        if name in self.runs:
            return self.runs[name]
        record = self.currency.record(f"unlearn {name}")
        try:
            return Run.from_json(record["asked"]) if record else None
        except (InputError, KeyError, TypeError):  # made by a version that recorded no run
            return None

    def command(self, name: str) -> str:
        """Returns the command that makes a model."""
        run = self.run(name)
        if run is not None:
            return run.command
        return f"salmu pretrain --model {name}" if name in foundation.NAMES else f"salmu unlearn --method {name}"

    def retain_splits(self, run: Run) -> list[str]:
        """Returns the splits that ``run`` may read besides forget, if they were built."""
        return [split for split in run.retain if (self.workspace.datasets / split.split("/")[0]).is_dir()]

    def run_data(self, run: Run) -> dict[str, str | None]:
        """Returns the digests of the data sets that a run reads."""
        return self.data("salmu", *(["retain_pairs"] if "retain_pairs/train" in self.retain_splits(run) else []))

    def forget_rows(self, run: Run) -> tuple[list[int] | None, int]:
        """Returns which rows of forget a run unlearns (None: all) and how many these are.

        Without built data sets, they are as many as any batch needs.
        """
        if not (self.workspace.datasets / "salmu").is_dir():
            return None, _UNBUILT
        rows = distributed.from_main(lambda: self._select(run))
        return rows, view.count_rows(self.workspace.datasets, view.FORGET) if rows is None else len(rows)

    def _select(self, run: Run) -> list[int] | None:
        if run.forget == Selector():
            return None  # without reading forget
        if self._columns is None:
            self._columns = view.read_columns(self.workspace.datasets, view.FORGET, "identity_id", "data_field")
        identities, fields = self._columns["identity_id"], self._columns["data_field"]
        return run.forget.rows(identities, fields, f"{run.where}.forget")

    def pretrain_fields(self, name: str, data: Mapping[str, str | None]) -> dict[str, Any]:
        """Returns what a foundation model is made from."""
        return {
            "datasets": data,
            "pairs": name,
            **config_lib.identity_section(self.config, "seed", "model", "data", "train"),
            "environment": host.numeric_environment(),
            "code": code("pretrain"),
        }

    def unlearn_fields(
        self, run: Run, method: Mapping[str, Any], data: Mapping[str, str | None], parent: str
    ) -> dict[str, Any]:
        """Returns what an unlearned model is made from, the method's defaults included."""
        return {
            "datasets": data,
            "parent": parent,
            "method": {"name": run.method_name, **method["options"]},
            "hyper": method["hyper"],
            "trainable": method["trainable"],
            "forget": run.forget.to_json(),
            "retain": self.retain_splits(run),
            "seed": run.seed,
            **({} if run.selected is None else {"sweep": dict(run.selected)}),  # the manifest records it
            **config_lib.identity_section(self.config, "model"),
            "environment": host.numeric_environment(),
            "code": self._code(run),
        }

    def _code(self, run: Run) -> dict[str, str]:
        if run.file and not run.file.is_file():
            return {run.file.name: "no file"}  # a model that it has made can still be judged
        if run.file:
            return code("unlearn", files_of_users=[run.file])
        return code("unlearn", f"salmu_jax.unlearning.methods.{run.method}")

    def evaluate_fields(self, manifest: Mapping[str, Any], data: Mapping[str, str | None]) -> dict[str, Any]:
        """Returns what a result is made from. The batch size is left out: no figure depends on it."""
        return {
            "datasets": data,
            "checkpoint": manifest["digest"],
            "architecture": contents.architecture_digest(manifest),
            "parent": manifest.get("parent"),
            "run": manifest.get("run"),
            "compromised": self._moved_towards(),
            **config_lib.identity_section(self.config, "model", "evaluate"),
            "environment": host.numeric_environment(),
            "code": code("evaluate"),
        }

    def _moved_towards(self) -> str | None:
        """Returns the digest of the Compromised that a probe moves the evaluated model towards; None without either."""
        if "weights" not in self.config.evaluate.probes:
            return None
        return distributed.from_main(lambda: self._manifest(COMPROMISED).get("digest"))

    def check_fresh(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises InputError naming the results that do not belong to the present models, parents, data and config.

        A result whose model is not in the workspace came from elsewhere; the leaderboard compares it with the others.
        """
        distributed.from_main(lambda: self._check_fresh(results))

    def _check_fresh(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        stale = []
        for name, result in results.items():
            reasons, command = self._stale(name, result["provenance"])
            if reasons:
                stale.append(f"{name} ({listed(reasons, 3)}: {command})")
        if stale:
            raise InputError(f"are out of date, so the report would mislead: {listed(stale)}", "results")

    def _stale(self, name: str, made: Mapping[str, Any]) -> tuple[list[str], str]:
        """Returns why a result is stale, and the commands that renew it."""
        workspace = self.workspace
        evaluate = f"'salmu evaluate --model {name}'"
        directory = workspace.model(name)
        if not (directory / "manifest.json").is_file():
            return [], ""
        manifest = self._manifest(name)
        if not manifest:
            return ["its model's manifest cannot be read"], f"make the model again, then {evaluate}"
        if "source" not in manifest and name not in foundation.NAMES:
            again = f"'{self.command(name)}', then {evaluate}"
            if parent := self._other_parent(manifest):
                return [f"its parent is not the present {_shown(parent)}"], again
            run = self.run(name)
            if run and (reasons := self._unlearned_otherwise(run, manifest)):
                return reasons, again
        if name in foundation.NAMES and "source" not in manifest:
            fields = self.pretrain_fields(name, self.data("salmu", "retain_pairs"))
            if reasons := self.currency.changes(f"pretrain {name}", fields):
                return reasons, f"'salmu pretrain --model {name}', then {evaluate}"
        if (made.get("checkpoint") or {}).get("digest") != manifest.get("digest"):
            return ["its model has been made again"], evaluate
        data = self.data("salmu", "zeroshot")
        fields = self.evaluate_fields(manifest, data)
        reasons = self.currency.changes(f"evaluate {name}", fields, with_code=True)
        if not reasons and made.get("data") != data:
            reasons = ["its data are not the present ones"]
        return reasons, evaluate

    def _unlearned_otherwise(self, run: Run, manifest: Mapping[str, Any]) -> list[str]:
        """Returns which values of a run have changed since its model was made."""
        record = self.currency.record(f"unlearn {run.name}")
        if record is None:
            return []
        if record.get("asked") == run.to_json():  # then only the method's code can have changed
            made = record["fields"]
            method = {"options": made["method"], "hyper": made["hyper"], "trainable": made["trainable"]}
        else:
            method = self._describe(run)
        parent = self._manifest(run.parent).get("digest") or manifest.get("parent")
        fields = self.unlearn_fields(run, method, self.run_data(run), str(parent))
        return self.currency.changes(f"unlearn {run.name}", fields)


def parent_name(manifest: Mapping[str, Any]) -> str:
    """Returns the name of the model that an unlearned model was made from, by its manifest."""
    run = manifest.get("run")
    parent = run.get("parent") if isinstance(run, Mapping) else None
    return str(parent["name"]) if isinstance(parent, Mapping) and "name" in parent else COMPROMISED


def _shown(model: str) -> str:
    return foundation.TITLES.get(model, model)


def need(path: Path, command: str, otherwise: str = "") -> None:
    """Raises InputError if the output of an earlier stage is missing."""
    if not path.exists():
        raise InputError(f"not there yet; run '{command}' first{', ' + otherwise if otherwise else ''}", path)
