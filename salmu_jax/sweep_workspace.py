"""Makes the work directory of a sweep's trials: one of its own, inside of another one, whose Compromised it uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salmu_jax import config as config_lib
from salmu_jax.chain import Chain
from salmu_jax.foundation import COMPROMISED
from salmu_jax.runtime import contents
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.workspace import Workspace
from salmu_jax.unlearning.runs import Run


class ValidationWorkspace(Workspace):
    """The work directory of a sweep, inside of another one, whose Compromised it uses."""

    def __init__(self, config: Any, around: Workspace):
        super().__init__(config)
        self.around = around
        self.rerun, self.unfinished = around.rerun, around.unfinished

    @property
    def outermost(self) -> Path:
        return self.around.outermost

    @property
    def hidden(self) -> list[str]:
        return [*super().hidden, *self.around.hidden]

    def model(self, name: str) -> Path:
        return self.around.model(name) if name == COMPROMISED else super().model(name)


class ValidationChain(Chain):
    """Checks the inputs of trials: Compromised is made from the data of the work directory around, all else from these."""

    def __init__(self, workspace: ValidationWorkspace, *others: Any):
        super().__init__(workspace, *others)
        self._around = Chain(workspace.around, *others)
        self.pairs = 0  # of the inner forget

    def forget_rows(self, run: Run) -> tuple[list[int] | None, int]:
        """Returns that a trial unlearns all of the inner forget, whose size is known before it is written."""
        return None, self.pairs

    def _trusted(self, name: str, made_of: Mapping[str, str | None]) -> dict[str, Any]:
        if name != COMPROMISED:
            return super()._trusted(name, made_of)
        return self._around._trusted(name, recorded_data(self._around.workspace.datasets))


def recorded_data(datasets: Path) -> dict[str, str | None]:
    """Returns the digests of built data sets as recorded, without reading a file of them."""
    held = contents.read_contents(datasets)
    if held is None:
        raise InputError("holds no readable contents.json; run 'salmu build' again", datasets)
    digests = contents.data_digests(held)
    return {name: digests[name] for name in ("salmu", "retain_pairs")}


def inner_config(config: Any, root: Path) -> Any:
    """Returns the config of a sweep's own work directory."""
    values = config_lib.to_json(config)
    values |= {"workdir": str(root), "datasets_dir": ""}
    values["train"]["state_dir"] = ""
    values["unlearn"] |= {"methods": {}, "runs": {}}
    values["evaluate"]["probes"] = values["sweep"]["probes"]
    values["sweep"]["methods"] = {}
    return config_lib.from_json(values)
