"""Runs a sweep: trials of methods in a validation world, and the choice of each method's setting.

    WORKDIR/sweep/NAME/
      datasets/            the validation world: rows of forget, and retain data
      models/, results/    a model and a result a trial, as in any work directory
      trials.jsonl         one row per trial
      chosen.json          the setting chosen of each method, for runs to name
      sweep.json           the rule, what was searched, a row a setting, what was chosen

It is a work directory of its own, so trials are runs like others: each is made in a process that sees nothing but the inner
forget and retain data, is resumed after a kill, and reused where it is up to date. Its only model from outside is Compromised.
Neither the holdouts of the benchmark nor Clean, Retrained or the zero-shot images are opened, here or by a trial.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from salmu_jax import config as config_lib
from salmu_jax.chain import need
from salmu_jax.foundation import COMPROMISED
from salmu_jax.runtime import distributed, files, host, interrupts, processes
from salmu_jax.runtime.errors import Diverged, InputError
from salmu_jax.runtime.identity import code
from salmu_jax.runtime.text import safe_text
from salmu_jax.runtime.workspace import Workspace, provenance, say
from salmu_jax.stages import Stages
from salmu_jax.sweep import data, record, rule, table
from salmu_jax.sweep.division import Division, divide
from salmu_jax.sweep.settings import GRID, Search, Setting, read_searches, settings_of
from salmu_jax.sweep_workspace import ValidationChain, ValidationWorkspace, inner_config, recorded_data
from salmu_jax.unlearning import selected, view
from salmu_jax.unlearning.runs import Run

DIRECTORY = "sweep"
_WORKER = "salmu_jax.sweep_process"
_VALIDATION = "validation data"


class Sweep:
    """A sweep of the config's group ``sweep``, in the work directory of ``around``."""

    def __init__(self, around: Workspace):
        self.around, self.options = around, around.config.sweep
        name = self.options.name
        if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", name, re.ASCII):
            allowed = "64 letters, digits, '_' and '-' at most can, a letter or a digit first"
            raise InputError(f"{safe_text(name, 80)!r} cannot name a sweep; {allowed}", "sweep.name")
        self.root = around.root / DIRECTORY / name
        self.workspace = ValidationWorkspace(inner_config(around.config, self.root), around)
        self.stages = Stages(self.workspace, ValidationChain)
        assert isinstance(self.stages.chain, ValidationChain)
        self.chain = self.stages.chain
        self.trials: dict[str, tuple[Setting, Run]] = {}  # by the run's name, in the order of the search

    # In order -------------------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Runs all trials that are not there yet, prints the table, and returns the contents of ``sweep.json``.

        Everything is checked first. Raises InputError for anything wrong with the config or the work directory.
        """
        if distributed.process_count() > 1:
            raise InputError("runs in one process; start it on one host, and set sweep.at_a_time", "salmu sweep")
        searches = read_searches(self.around.config)
        slots = devices_of(self.options.at_a_time)
        division = self.check(searches)
        with self.workspace.locked():
            self.stages.remove_leftovers()
            self._write_data(division)
            diverged = self.make(slots)
            return self._record(searches, division, diverged)

    def check(self, searches: Sequence[Search]) -> Division:
        """Divides forget, lists the trials and checks each, before anything is written."""
        datasets = self.around.datasets
        need(datasets, "salmu build")
        if not self.around.currency.made_here("build", datasets):
            message = "holds other data than 'salmu build' made here; 'salmu build' makes it again"
            raise InputError(message, datasets)
        self.chain.trusted(COMPROMISED, {})
        columns = view.read_columns(datasets, view.FORGET, "identity_id", "data_field", "subset")
        division = divide(*columns.values(), share=self.options.share, seed=self.options.seed)
        self.list_trials(searches, len(division.rows["forget"]))
        return division

    def list_trials(self, searches: Sequence[Search], pairs: int) -> None:
        """Lists the runs of all settings and seeds, and checks them. ``pairs`` is the size of the inner forget."""
        options, seed = self.options, self.around.config.unlearn.seed
        self.chain.pairs = pairs
        takes_steps = self._takes_steps(searches)
        for search in searches:
            budgets = options.budgets if takes_steps[search.label] else ()
            draws = 0 if options.search == GRID else options.trials
            for setting in settings_of(search, budgets, draws=draws, seed=options.seed):
                for number in range(options.seeds):
                    run = setting.run(seed + number, self.around.config.unlearn.retain)
                    self.trials[run.name] = (setting, run)
        self.stages.runs.update({name: run for name, (_, run) in self.trials.items()})
        self.stages.unlearning.choose(list(self.trials))

    def make(self, slots: Sequence[Mapping[str, str]]) -> dict[str, str]:
        """Makes and evaluates the trials, as many at a time as there are ``slots``; returns how some of them diverged.

        One at a time, all are made before the first is evaluated, since only one process at a time can use the devices.
        """
        if len(slots) == 1:
            diverged = {name: line for name in self.trials if (line := self.unlearn(name))}
            for name in (COMPROMISED, *self.trials):
                if name not in diverged:
                    self.stages.evaluate(name)
            return diverged
        free = list(slots)

        def work(name: str) -> str:
            environment = free.pop()
            try:
                return processes.run(
                    _WORKER, self._request(name), label=name, environment={**os.environ, **environment}
                )
            finally:
                free.append(environment)

        with processes.signals_held() as held, ThreadPoolExecutor(len(slots)) as pool:
            waiting = {name: pool.submit(work, name) for name in self.trials}
            try:
                lines = {name: one.result() for name, one in waiting.items()}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                held.refuse_if_stopped()
                raise
        self.stages.evaluate(COMPROMISED)
        return {name: line for name, line in lines.items() if line}

    def unlearn(self, name: str) -> str:
        """Makes the model of a trial; returns a line if it diverged, which is a result like others."""
        try:
            self.stages.unlearning.make(self.stages.runs[name])
        except Diverged as error:
            say(f"{name}: {error}")
            return str(error)
        return ""

    # Its parts ------------------------------------------------------------------------------------------------------------

    def _takes_steps(self, searches: Sequence[Search]) -> dict[str, bool]:
        """Returns by label whether a method takes steps, so that a budget applies. The code of methods is not loaded here."""
        from salmu_jax.unlearning import isolation

        runs = [Run(one.label, one.method, where=one.where) for one in searches]
        found = isolation.describe(self.workspace, [(run, self.chain.pairs) for run in runs])
        return {label: about["takes_steps"] for label, about in found.items()}

    def _write_data(self, division: Division) -> None:
        workspace, datasets = self.workspace, self.around.datasets
        splits = data.permitted(datasets, self.around.config.unlearn.retain)
        fields = {
            "splits": splits,
            "files": view.digest_of_splits(datasets, splits),
            "share": self.options.share,
            "seed": self.options.seed,
            "code": code(_VALIDATION),
        }
        with workspace.stage(_VALIDATION, workspace.datasets, fields, inputs=[datasets]) as identity:
            if identity:
                data.write_validation_data(datasets, splits, division, workspace.datasets)
                say(f"{_VALIDATION}: {division.describe()}")

    def _request(self, name: str) -> dict[str, Any]:
        return {
            "config": config_lib.to_json(self.around.config),
            "pairs": self.chain.pairs,
            "run": self.stages.runs[name].to_json(),
            "rerun": self.workspace.rerun,
            "unfinished": self.workspace.unfinished,
            "argv": sys.argv,
        }

    def _record(self, searches: Sequence[Search], division: Division, diverged: Mapping[str, str]) -> dict[str, Any]:
        """Writes ``trials.jsonl``, ``chosen.json`` and ``sweep.json``, unless they are up to date, and prints the table."""
        from salmu_jax.evaluation.result import load_result

        workspace = self.workspace
        results = {
            name: load_result(workspace.result(name)) for name in (COMPROMISED, *self.trials) if name not in diverged
        }
        earlier = {path.stem for path in workspace.result("x").parent.glob("*.json")} - {COMPROMISED, *self.trials}
        output = self.root / record.RECORD
        fields = {
            "results": {name: files.sha256_json(_measured(result)) for name, result in results.items()},
            "diverged": dict(diverged),
            "earlier": sorted(earlier),
            "asked": _asked(self.around.config),
            "code": code("sweep"),
        }
        beside = [self.root / record.TRIALS, self.root / selected.FILE]
        with workspace.stage(DIRECTORY, output, fields, beside=beside) as identity:
            if identity:
                self._write(results, division, diverged, len(earlier))
        held = files.read_json(output)
        self._print(held, searches)
        return held

    def _write(
        self, results: Mapping[str, Mapping[str, Any]], division: Division, diverged: Mapping[str, str], earlier: int
    ) -> None:
        reference, how = results[COMPROMISED], self.options.rule
        found = rule.levels(record.figures_of(reference), reference["protocol"])
        rows = [
            record.trial_row(setting, run, found, how, results.get(name), self._seconds(name), diverged.get(name, ""))
            for name, (setting, run) in self.trials.items()
        ]
        record.write(
            self.root,
            [setting for setting, _ in self.trials.values()],
            rows,
            earlier=earlier,
            name=self.options.name,
            asked=_asked(self.around.config),
            rule=rule.describe(how, found),
            validation={
                **division.counts(),
                "data": recorded_data(self.workspace.datasets)["salmu"],
                "compromised": reference["provenance"]["checkpoint"]["digest"],
            },
            provenance=provenance(config_lib.to_json(self.around.config)),
        )

    def _seconds(self, name: str) -> dict[str, float]:
        found = {stage: self.workspace.currency.record(f"{stage} {name}") for stage in ("unlearn", "evaluate")}
        return {stage: made["seconds"] for stage, made in found.items() if made}

    def _print(self, held: Mapping[str, Any], searches: Sequence[Search]) -> None:
        say("")
        for line in (*table.lines(held), "", *table.explanation(held)):
            say(line)
        named = {one["name"] for one in held["rule"]["shortfalls"]}
        if not named & {"leak", "indirect", "relearn", "leak_in_part", "relearn_in_part"}:
            say("warning: Compromised gives nothing away in the validation world, so nothing measures forgetting")
        methods = {one.label: one.method for one in searches}
        say("\nTo run what was chosen, add to 'salmu unlearn' or 'salmu bench':")
        for line in table.uses(held, methods, str(self.root)):
            say(f"  {line}")
        say(f"\nThe sweep: {(self.root / record.RECORD).absolute()}")


def devices_of(at_a_time: int) -> list[dict[str, str]]:
    """Returns the environment of each of the trials that run side by side: on GPUs, each has one of its own.

    Raises InputError where so many cannot run side by side: on a TPU, or with fewer GPUs.
    """
    if at_a_time == 1 or host.computes_on_cpu():
        return [{} for _ in range(at_a_time)]
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if host.has_tpu() or len(gpus) < at_a_time:
        raise InputError(
            f"is {at_a_time}, and each trial needs devices of its own; name as many GPUs in CUDA_VISIBLE_DEVICES, or run one"
            " at a time",
            "sweep.at_a_time",
        )
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:at_a_time]]


def work_on(request: Mapping[str, Any]) -> str:
    """Makes and evaluates one trial, in a process of its own; returns a line if it diverged."""
    around = Workspace(config_lib.from_json(request["config"]))
    around.rerun, around.unfinished = request["rerun"], request["unfinished"]
    sweep, run = Sweep(around), Run.from_json(request["run"])
    sweep.chain.pairs = request["pairs"]
    sweep.stages.runs[run.name] = run
    with interrupts.orderly():
        line = sweep.unlearn(run.name)
        if not line:
            sweep.stages.evaluate(run.name)
    return line


def _measured(result: Mapping[str, Any]) -> list[Any]:
    """Returns what a sweep takes from a result: not when it was measured."""
    protocol = result["protocol"]
    return [
        record.figures_of(result),
        result["provenance"]["checkpoint"]["digest"],
        protocol["rows"],
        protocol["gallery"],
    ]


def _asked(config: Any) -> dict[str, Any]:
    """Returns the config's group ``sweep`` without what does not change its result."""
    return config_lib.identity_section(config, "sweep")["sweep"]
