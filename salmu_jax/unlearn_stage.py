"""Makes the models of runs: chooses and checks the runs, and starts each in a process of its own.

The code of methods is loaded only in processes that see nothing but what a method may read (``unlearning/isolation.py``): one
that describes all methods, and one for each run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from salmu_jax import config as config_lib
from salmu_jax import foundation
from salmu_jax.chain import Chain
from salmu_jax.foundation import COMPROMISED
from salmu_jax.runtime import console, distributed, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import Identity
from salmu_jax.runtime.messages import did_you_mean, listed
from salmu_jax.runtime.text import safe_text
from salmu_jax.runtime.workspace import Workspace, provenance
from salmu_jax.unlearning import view
from salmu_jax.unlearning.runs import Run, names_of, read_runs, run_named, with_parents

if TYPE_CHECKING:
    from salmu_jax.training.states import States

WITHOUT_RETAIN = (
    "warning: the method trains on no retain pairs, and nothing else holds the model in place; see its GenKnow"
)


class Unlearning:
    """The runs of a work directory.

    Args:
      workspace: the work directory, with its config.
      states: ``states(label, name, identity)`` are the states of a model under way.
      chain: makes the chain that checks inputs.
    """

    def __init__(
        self,
        workspace: Workspace,
        states: Callable[[str, str, Identity], States],
        chain: Callable[..., Chain] = Chain,
    ):
        self.workspace = workspace
        self.config = workspace.config
        self.runs = read_runs(workspace.config)
        self.chain = chain(workspace, self.runs, self.describe)
        self._states = states
        self._described: dict[str, tuple[Any, dict[str, Any]]] = {}  # by run: what was asked, and the answer

    def choose(self, names: Sequence[str] = (), methods: Sequence[str] = ()) -> list[Run]:
        """Returns the runs to make, each after its parent: those of some names and methods, or all of the config.

        All are checked before the first one runs. Raises InputError for an unknown run, method, field or parent, and for a
        cycle of parents.
        """
        if methods:
            self.runs.update(read_runs(self.config, methods))
        chosen = [run_named(self.runs, name).name for name in names]
        chosen += names_of(methods)
        runs = with_parents(self.runs, chosen if names or methods else self.runs)
        for run in runs:
            self._check_parent(run)
            if run.sweep and run.selected is None:
                raise InputError(f"no {run.sweep} yet; 'salmu sweep' makes it", f"{run.where}.sweep")
        self.describe(*runs)
        return runs

    def make(self, run: Run) -> None:
        """Makes the model of a run, in a process of its own that sees only permitted data."""
        from salmu_jax.unlearning import isolation

        workspace, config, name = self.workspace, self.config, run.name
        retain, data = self.chain.retain_splits(run), self.chain.run_data(run)
        parent = self.chain.trusted(run.parent, data)
        self._check_architecture(parent, run)
        rows, pairs = self.chain.forget_rows(run)
        method = self.describe(run)
        if not retain and "retain" in method["needs"]:
            raise InputError(f"none of {', '.join(run.retain)} was built", f"{run.where}.retain")
        fields = self.chain.unlearn_fields(run, method, data, parent["digest"])
        inputs, asked = [workspace.datasets, workspace.model(run.parent)], run.to_json()
        record = _record(run, method, parent["digest"], pairs, retain)
        with workspace.stage(f"unlearn {name}", workspace.model(name), fields, inputs=inputs, asked=asked) as identity:
            if identity:
                if method["trains_without_retain"] and distributed.is_main():
                    console.complain(f"unlearn {name}: {WITHOUT_RETAIN}")
                isolation.unlearn(
                    workspace,
                    run,
                    parent=workspace.model(run.parent),
                    splits=[view.FORGET, *(retain if "retain" in method["needs"] else [])],
                    request={"rows": rows, "forget_pairs": pairs},
                    states=self._states(f"unlearn {name}", name, identity),
                    manifest=lambda device: {
                        "identity": identity.digest,
                        "data": data,
                        **provenance(config_lib.to_json(config), device),
                        "parent": parent["digest"],
                        "root": parent.get("root") or parent["digest"],
                        "run": record,
                    },
                )
        states = self._states(f"unlearn {name}", name, Identity(fields))
        states.remove()
        states.finish()

    def is_there(self, name: str) -> bool:
        """Returns whether the work directory has a model of this name."""
        return "/" not in name and name not in (".", "..") and (self.workspace.model(name) / "manifest.json").is_file()

    def _check_parent(self, run: Run) -> None:
        """Raises InputError if no method may read the parent of a run, or if no stage makes it and it is not there either."""
        name = run.parent
        if name != COMPROMISED and name in foundation.NAMES:
            message = f"{foundation.TITLES[name]} is what methods are judged by, so none may read it; name compromised"
            raise InputError(f"{message}, or the run of another method", f"{run.where}.parent")
        if name != COMPROMISED and name not in self.runs and not self.is_there(name):
            there = [COMPROMISED, *(other for other in self.runs if other != run.name)]
            hint = did_you_mean(name, there) or f"there are: {listed(there)}"
            raise InputError(f"no model {safe_text(name, 80)!r} to start from; {hint}", f"{run.where}.parent")

    def _check_architecture(self, manifest: Mapping[str, Any], run: Run) -> None:
        """Raises InputError if the parent of a run is not of the config's architecture."""
        from salmu_jax.models.build import make_clip
        from salmu_jax.training.checkpoint import check_architecture

        try:
            check_architecture(manifest, make_clip(self.config).config, self.workspace.model(run.parent))
        except InputError as error:
            raise InputError(str(error), f"{run.where}.parent") from error

    def describe(self, *runs: Run) -> dict[str, Any]:
        """Returns a description of the method of the last of ``runs``; those of all are kept.

        Each call describes again all that were described before for other data or other fields, since it starts a process.
        """
        from salmu_jax.unlearning import isolation

        pairs = {run.name: (run, self.chain.forget_rows(run)[1]) for run in runs}
        if any(self._described.get(name, ((),))[0] != one for name, one in pairs.items()):
            before = {name: (run, self.chain.forget_rows(run)[1]) for name, ((run, _), _) in self._described.items()}
            asked = before | pairs
            found = distributed.from_main(lambda: isolation.describe(self.workspace, list(asked.values())))
            self._described = {name: (one, found[name]) for name, one in asked.items()}
        return self._described[runs[-1].name][1] if runs else {}


def _record(
    run: Run, method: Mapping[str, Any], parent: str, forget_rows: int, retain: Sequence[str]
) -> dict[str, Any]:
    """Returns what the manifest of an unlearned model, and its result, say of the run."""
    selected = {} if run.selected is None else {"sweep": dict(run.selected)}
    return {
        "name": run.name,
        "method": run.method_name,
        **selected,
        **{key: method[key] for key in ("title", "reference", "options", "hyper")},
        "seed": run.seed,
        "parent": {"name": run.parent, "digest": parent},
        "forget": run.forget.to_json(),
        "forget_rows": forget_rows,
        "retain": list(retain) if "retain" in method["needs"] else [],
        "trains_without_retain": method["trains_without_retain"],
        "code": files.sha256_file(run.file) if run.file else None,
    }
