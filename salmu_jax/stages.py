"""Runs the stages of the benchmark; each reads the directories of earlier stages and writes its own.

    generate -> build -> pretrain (a foundation model each) -> unlearn (a method each) -> evaluate (a model each) -> report

Every stage can be run alone; if its input is missing, it says which stage makes it. An output is reused if it was made from
the same values, code and inputs, and is intact (``identity.py``). Inputs are checked before they are used: data, the parent
of a model and the model of a result are compared with what was recorded when they were made.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salmu_jax import config as config_lib
from salmu_jax import data_stages, foundation
from salmu_jax.chain import Chain
from salmu_jax.evaluate_stage import Evaluation
from salmu_jax.runtime import distributed, files, processes
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import Identity, code
from salmu_jax.runtime.text import safe_value
from salmu_jax.runtime.workspace import Workspace, provenance, say
from salmu_jax.unlearn_stage import Unlearning

if TYPE_CHECKING:
    from salmu_jax.evaluation.run import Evaluator
    from salmu_jax.training.states import States


class Stages:
    """Runs the stages of one workspace. Data that several stages need are loaded once per process.

    Modules that take seconds to import are imported by the stages that need them.

    Args:
      workspace: the work directory, with its config.
      chain: makes the chain that checks inputs.
    """

    def __init__(self, workspace: Workspace, chain: Callable[..., Chain] = Chain):
        self.workspace = workspace
        self.config = workspace.config
        self.unlearning = Unlearning(workspace, self._states, chain)
        self.chain = self.unlearning.chain
        self.runs = self.unlearning.runs
        self.foundation = foundation.chosen(workspace.config.models)
        self.evaluation = Evaluation(workspace, self.unlearning)
        self._cache: Any = None

    # Making the data ----------------------------------------------------------------------------------------------------

    def generate(self) -> None:
        """Makes the world, unless the config names one."""
        data_stages.generate(self.workspace)

    def build(self, strict: bool = False) -> None:
        """Checks the world and converts it to TFDS data sets; ``strict`` also refuses harmless deviations."""
        data_stages.build(self.workspace, self.chain, strict)

    # Making the models --------------------------------------------------------------------------------------------------

    def pretrain(self, name: str, profile: bool = False) -> None:
        """Trains a foundation model on the splits that ``foundation.py`` lists."""
        from data_pipelines.input import PairSource
        from salmu_jax.evaluation.during_training import make_evaluation
        from salmu_jax.training.pretrain import pretrain

        workspace, config = self.workspace, self.config
        if name not in foundation.NAMES:
            raise InputError(f"unknown foundation model {name!r}; there are: {', '.join(foundation.NAMES)}", "--model")
        if self.chain.imported(name):
            say(f"pretrain {name}: not needed, {workspace.model(name)} was imported")
            return
        data = self.chain.data("salmu", "retain_pairs")
        fields = self.chain.pretrain_fields(name, data)
        inputs = [workspace.datasets]
        with workspace.stage(f"pretrain {name}", workspace.model(name), fields, inputs=inputs) as identity:
            if identity:
                splits = foundation.BY_NAME[name].splits
                absent = () if data["retain_pairs"] else (foundation.RETAIN_PAIRS,)
                pretrain(
                    config,
                    PairSource.open(workspace.datasets, [split for split in splits if split not in absent]),
                    workspace.model(name),
                    self._states(f"pretrain {name}", name, identity),
                    name=name,
                    manifest={"identity": identity.digest, "data": data, **provenance(config_lib.to_json(config))},
                    cache=self._decoded_cache(),
                    logs=workspace.logs(name),
                    evaluation=functools.partial(
                        make_evaluation, datasets=workspace.datasets, batch_size=config.evaluate.batch_size
                    ),
                    profile=profile,
                )
        states = self._states(f"pretrain {name}", name, Identity(fields))
        if not config.train.keep_every:
            states.remove()
        states.finish()

    def check_config(self) -> None:
        """Checks the fields of models and evaluation before they are needed. Raises InputError."""
        from salmu_jax.evaluation.draws import check_draws
        from salmu_jax.evaluation.pixels import check_policy
        from salmu_jax.evaluation.protocol import check_prompt
        from salmu_jax.models.build import make_clip
        from salmu_jax.training.state_store import state_path

        make_clip(self.config)
        if self.config.train.state_dir:
            state_path(self.config.train.state_dir)
        check_prompt(self.config.evaluate.idzsc_prompt, "evaluate.idzsc_prompt")
        check_policy(self.config.evaluate.cache_pixels)
        check_draws(self.config.evaluate.draws)
        data = self.config.data
        if data.cache_decoded and (data.augment or data.workers > 0):
            message = "decoded images in memory go with data.augment=False and data.workers=0 only"
            raise InputError(message, "data.cache_decoded")

    # Measuring ----------------------------------------------------------------------------------------------------------

    def evaluate(self, name: str, checkpoint: Path | None = None, **form: Any) -> None:
        """Computes all metrics of a model; see :meth:`Evaluation.evaluate`."""
        self.evaluation.evaluate(name, checkpoint, **form)

    def evaluator(self) -> Evaluator:
        """Returns the evaluator that embeds the data of this workspace."""
        return self.evaluation.evaluator()

    def report(self, names: Sequence[str] | None = None) -> Path:
        """Prints the table and writes ``leaderboard.json`` and the page, for ``names`` or all results; returns the page."""
        from salmu_jax.report.gather import choose, gather
        from salmu_jax.report.groups import grouped
        from salmu_jax.report.page import build_board, write_report
        from salmu_jax.report.samples import sample_pictures
        from salmu_jax.report.table import print_table
        from salmu_jax.unlearning.isolation import method_names

        workspace, config = self.workspace, self.config
        for name in names or ():
            if not workspace.result(name).exists():
                self.evaluation.check_known(name)
        directory = workspace.result("clean").parent
        names = choose(directory, names, self.all_models(), method_names(), say)
        entries = gather(directory, names, say)
        self.chain.check_fresh({entry.id: entry.result for entry in entries})
        fields = {
            "results": {name: files.sha256_file(workspace.result(name)) for name in names},
            **config_lib.section(config, "name", "report"),
            "code": code("report"),
        }

        def work() -> None:
            rows = next(entry.rows for entry in entries if entry.id == "clean")
            write_report(
                workspace.report,
                entries,
                sample_pictures(workspace.datasets, rows, people=config.report.people),
                title=f"SALMUBench: {config.name}",
                run={
                    "command": provenance({})["command"],
                    "stages": workspace.currency.seconds(),
                    "config": safe_value(config_lib.to_json(config)),
                },
            )

        inputs = [workspace.datasets]
        with workspace.stage("report", workspace.report, fields, inputs=inputs) as identity:
            if identity:
                distributed.from_main(work)
        if distributed.is_main():
            print_table(grouped(build_board(entries)))
        page = workspace.report / "index.html"
        say(f"\nThe page: {page.absolute()}")
        return page

    def bench(self) -> Path:
        """Runs all stages in order; returns the page's path.

        Only one process at a time can use the devices, and a method must not run where others are trained or evaluated. So
        this process computes nothing until all models are finished.
        """
        runs = self.unlearning.choose()
        self._apart(("generate",), ("build",), *(("pretrain", name) for name in self.foundation))
        for run in runs:
            self.unlearning.make(run)
        for name in self.all_models():
            self.evaluate(name)
        return self.report(self.all_models())

    def _apart(self, *calls: tuple[str, ...]) -> None:
        """Runs stages in a separate process, which frees the devices when it ends."""
        request = {
            "config": config_lib.to_json(self.config),
            "calls": calls,
            "rerun": self.workspace.rerun,
            "unfinished": self.workspace.unfinished,
            "argv": sys.argv,
            "distributed": distributed.for_child(),
        }
        processes.run("salmu_jax.stage_process", request, label="salmu")

    def remove_leftovers(self) -> None:
        """Removes the partial outputs of killed runs, and moves killed methods' checkpoints back to the work directory."""
        distributed.from_main(self._remove_leftovers)

    def _remove_leftovers(self) -> None:
        from salmu_jax.unlearning import cells

        workspace, root = self.workspace, self.workspace.root
        cells.recover(workspace)
        for directory in (root, root / "models", root / "results", root / "stages"):
            for leftover in files.find_partials(directory):
                files.remove_partial(leftover)
        own = [] if self.config.datasets_dir else [workspace.datasets]  # shared ones: see new_directory
        for output in (*own, workspace.report):  # they may be links to other disks
            files.remove_partials(output)

    # Shared -------------------------------------------------------------------------------------------------------------

    def _states(self, label: str, name: str, identity: Identity) -> States:
        """Returns the checkpoints of an unfinished model."""
        from salmu_jax.training.states import States

        workspace = self.workspace
        return States(
            workspace.model_state(name),
            identity,
            label,
            shared=workspace.states(name),
            owner=files.sha256_json(str(workspace.root.resolve())),
            unfinished=workspace.unfinished,
            rerun=workspace.rerun,
        )

    def all_models(self) -> list[str]:
        """Returns the names of the foundation models and of the config's runs."""
        return [*self.foundation, *self.runs]

    def _decoded_cache(self) -> Any:
        """Returns the decoded images that all models of this process share, if the config keeps them in memory."""
        from data_pipelines.input import DecodedCache
        from salmu_jax.models.zoo import architecture

        if self._cache is None and self.config.data.cache_decoded:
            self._cache = DecodedCache(architecture(self.config.model.architecture).image_size)
        return self._cache
