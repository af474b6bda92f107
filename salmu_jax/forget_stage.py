"""Answers deletion requests: ``salmu forget``.

The output is a work directory of its own, in which every request is a named run (``unlearning/runs.py``), isolated like any
other, and evaluated like any other:

    asked.json              whose requests these are: what the directory answers, and of which checkpoint
    models/start            a copy of the checkpoint
    models/request          the model without what was asked; of several requests, models/request-001 and so on
    results/, stages/ ...   as in every work directory
    .salmu-5f1c...          the cell of a run, while it runs (unlearning/cells.py)
    request.json, .html     the answer to a request: request-001.json and so on
    requests.json, .html    of several requests: what each cost, and what came back of earlier ones

Since stages reuse what is complete, the same command goes on wherever it was killed.
"""

from __future__ import annotations

import collections
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from salmu_jax import config as config_lib
from salmu_jax.chain import need
from salmu_jax.deletion import answers
from salmu_jax.deletion.measures import Measured
from salmu_jax.deletion.neighbours import People
from salmu_jax.deletion.requests import Asked, Association, Request, find
from salmu_jax.evaluation.probes import indirect, relearn
from salmu_jax.evaluation.rows import TARGETS
from salmu_jax.runtime import contents, files
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.errors import InputError, disk_refusals
from salmu_jax.runtime.interrupts import orderly
from salmu_jax.runtime.json_reader import read_json
from salmu_jax.runtime.messages import did_you_mean, listed
from salmu_jax.runtime.workspace import Workspace, provenance, say
from salmu_jax.stages import Stages
from salmu_jax.unlearning import view
from salmu_jax.unlearning.runs import OWN

METHOD = "pinned_surrogates"  # unless --method names another
# How many pairs of a request it sees where the config does not say: 300 steps. A single attribute has so few rows that the
# passes of its own setting would be 5 steps, which hurt what is around it and end before the pins have pulled that back.
PAIRS = 28_800
# Methods that leave what was asked in the model, or leave no model.
_NO_ANSWERS = {
    "relearn": "trains on what is to be forgotten",
    "no_op": "changes nothing",
    "random_weights": "leaves nothing of the model",
}
START, REQUEST, TOGETHER = "start", "request", "together"
ASKED = "asked.json"

# What is taken over from the checkpoint's manifest: what loading needs, and its descent.
_KEPT = ("schema", "digest", "architecture", "activation", "image", "tokenizer", "leaves", "files", "parent", "root")


class AnswerWorkspace(Workspace):
    """The output of requests. A cell in it, with copies of personal data that a kill leaves, is removed together with it."""

    @property
    def place_of_cells(self) -> Path:
        return self.root.resolve()


class Step(NamedTuple):
    """A run, and the requests that it answers."""

    run: str
    asked: tuple[Asked, ...]


class Forgetting:
    """Answers requests on a checkpoint.

    Args:
      config: names the data by its ``workdir`` or ``datasets_dir``, and the settings of methods and of evaluation.
      checkpoint: a model directory.
      requests: what is asked, in its order.
      output: the directory to make.
      method: a name that ``salmu methods`` lists, or ``FILE.py:CLASS``; its fields are those of ``unlearn.methods``.
      several: whether the output is that of a sequence, even of one request.
      together: whether one run answers all requests, instead of one run per request.

    Raises InputError, before anything is written, for what is wrong with any of these.
    """

    def __init__(
        self,
        config: Any,
        checkpoint: Path,
        requests: Sequence[Request],
        output: Path,
        *,
        method: str = METHOD,
        several: bool = False,
        together: bool = False,
    ):
        check_method(config, method)
        from salmu_jax.models.build import make_clip
        from salmu_jax.training.checkpoint import check_architecture, read_manifest

        datasets = Path(config.datasets_dir) if config.datasets_dir else Path(config.workdir) / "datasets"
        need(datasets, "salmu build")
        self._output, self._checkpoint, self._several, self._together = output, checkpoint, several, together
        self._check_place(Workspace(config))
        columns = {
            split: view.read_columns(datasets, f"salmu/{split}", "identity_id", "data_field") for split in TARGETS
        }
        self._asked = find(requests, columns)
        self._manifest = read_manifest(checkpoint)
        check_architecture(self._manifest, make_clip(config).config, checkpoint)
        self._steps = steps_of(self._asked, several, together)
        self._check_output()
        rows = collections.Counter(zip(columns["forget"]["identity_id"], columns["forget"]["data_field"], strict=True))
        self._config = output_config(config, datasets, output, method, self._steps, rows)
        self.workspace = AnswerWorkspace(self._config)
        self.stages = Stages(self.workspace)
        self.stages.check_config()
        try:
            self.stages.unlearning.describe(*self.stages.runs.values())
        except InputError as error:  # the runs have the fields that the config has for the method
            runs = "|".join(step.run for step in self._steps)
            line = re.sub(rf"unlearn\.runs\.({runs})\b", f"unlearn.methods.{method_field(method)}", str(error))
            raise InputError(line) from error

    def run(self) -> Path:
        """Makes the models, evaluates them and writes the answers; returns the page to read first."""
        with orderly(), self.workspace.locked(), disk_refusals(self._output):
            self._check_output()
            self.stages.remove_leftovers()
            files.write_json(self._output / ASKED, self._whose())
            self._place_start()
            # As in 'salmu bench': a method runs while this process holds no device.
            for run in self.stages.unlearning.choose():
                self.stages.unlearning.make(run)
            names = [START, *(step.run for step in self._steps)]
            for name in names:
                self.stages.evaluate(name)
            return self._write({name: Measured.read(self.workspace.result(name)) for name in names})

    # The directory --------------------------------------------------------------------------------------------------------

    def _whose(self) -> dict[str, Any]:
        """Returns what tells this output from that of other requests."""
        return {
            "schema": answers.SEQUENCE_SCHEMA if self._several else answers.SCHEMA,
            "checkpoint": self._manifest["digest"],
            "together": self._together,
            "requests": [one.to_json() for one in self._asked],
        }

    def _check_place(self, around: Workspace) -> None:
        """Raises InputError if the output lies in an input, or in another output of the work directory ``around``."""
        places = {Path(path): "which the config names" for path in around.hidden if Path(path) != around.root}
        places |= dict.fromkeys([around.world, *around.outputs], f"an output in the work directory {around.root}")
        places |= {around.datasets: "the data sets", self._checkpoint: "the checkpoint"}
        place = self._output.resolve()
        for path, what in reversed(places.items()):
            if place.is_relative_to(path.resolve()):
                raise InputError(f"lies in {path}, {what}; name a directory elsewhere", self._output)

    def _check_output(self) -> None:
        """Raises InputError if the output is not empty, and not of these requests."""
        output = self._output
        if not output.exists() or (output.is_dir() and _is_empty(output)):
            return
        try:
            found = read_json(output / ASKED)
        except (OSError, InputError):
            found = None
        if not isinstance(found, dict) or found.keys() != self._whose().keys():
            raise InputError("is there already, and 'salmu forget' did not make it; name a new directory", output)
        whose = self._whose()
        if different := [key for key in whose if found[key] != whose[key]]:
            what = listed("the requests" if key == "requests" else key for key in different)
            raise InputError(f"answers something else ({what} differ); name a new directory", output)

    def _place_start(self) -> None:
        """Copies the checkpoint, as a model that no stage of the directory makes. Raises InputError if it is damaged."""
        target = self.workspace.model(START)
        if (target / "manifest.json").is_file():
            return  # the stages compare its files
        held = contents.read_contents(self._checkpoint)
        if held is None or not contents.seal_holds(self._checkpoint):
            raise InputError("its manifest is damaged; make the model again", self._checkpoint)
        if damage := contents.problems(self._checkpoint, held):
            raise InputError(f"{listed(damage)}; make the model again", self._checkpoint)
        manifest = {key: self._manifest[key] for key in _KEPT if key in self._manifest}
        manifest |= {"name": START, "source": {"checkpoint": str(self._manifest.get("name"))}}
        with new_directory(target) as partial:
            shutil.copytree(self._checkpoint / "params", partial / "params")
            manifest["files"] = contents.records(partial)
            files.write_json(partial / "manifest.json", {**manifest, "seal": contents.seal(manifest)})
        say(f"forget: {target}, a copy of {self._checkpoint}")

    # The answers ----------------------------------------------------------------------------------------------------------

    def _write(self, measured: Mapping[str, Measured]) -> Path:
        from salmu_jax.report.request_page import request_page, sequence_page

        people, output = self._people(), self._output
        made = provenance(config_lib.to_json(self._config))
        before, earlier = START, list[Asked]()
        for step in self._steps:
            value = answers.answer(step.asked, earlier, people, measured[before], measured[step.run])
            value |= {"models": self._models(before, step.run, measured), "made": made}
            files.write_json(output / f"{step.run}.json", value)
            files.write_text(output / f"{step.run}.html", request_page(value, f"{step.run}.json"))
            say(f"forget {step.run}: {_summed_up(value)}")
            before, earlier = step.run, [*earlier, *step.asked]
        if not self._several:
            return output / f"{REQUEST}.html"
        counts = [sum(len(step.asked) for step in self._steps[:number]) for number in range(len(self._steps) + 1)]
        models = [(name, measured[name], count) for name, count in zip(measured, counts, strict=True)]
        table = answers.sequence(self._asked, people, models)
        for step, name in zip(table["steps"], measured, strict=True):
            step |= {"seconds": self._seconds(name), "digest": _digest(measured[name])}
        table |= {"together": self._together, "made": made}
        files.write_json(output / "requests.json", table)
        files.write_text(output / "requests.html", sequence_page(table, "requests.json"))
        return output / "requests.html"

    def _models(self, before: str, after: str, measured: Mapping[str, Measured]) -> dict[str, Any]:
        """Returns what the models of an answer are, and how the new one was made."""
        run = measured[after].result["provenance"]["checkpoint"]["run"]
        return {
            "before": {"name": before, "digest": _digest(measured[before])},
            "after": {"name": after, "digest": _digest(measured[after])},
            "checkpoint": self._manifest["digest"],
            "data": measured[after].result["provenance"]["data"],
            "results": {name: measured[name].result["digest"] for name in (before, after)},
            "evaluate_seed": measured[after].protocol["seed"],
            "run": run,
            "seconds": self._seconds(after),
        }

    def _seconds(self, name: str) -> dict[str, float]:
        """Returns how long a model took to make and to evaluate, where it was not reused or resumed."""
        records = {stage: self.workspace.currency.record(f"{stage} {name}") for stage in ("unlearn", "evaluate")}
        return {stage: record["seconds"] for stage, record in records.items() if record}

    def _people(self) -> People:
        """Returns the people of the data as the start model sees them; its embeddings are in the cache."""
        from salmu_jax.evaluation.embeddings import encode_texts
        from salmu_jax.models.build import make_clip, make_tokenizer
        from salmu_jax.training.checkpoint import load_model

        clip, params, manifest = load_model(self.workspace.model(START), make_clip(self._config).config)
        tokenizer, evaluator = make_tokenizer(clip), self.stages.evaluator()
        found = evaluator.measure("forget", clip, params, tokenizer, manifest["digest"]).embeddings
        assert found is not None  # this is the only process
        splits = evaluator.data(clip.config.image_size).splits
        return People(splits, found.images, lambda texts: encode_texts(clip, params, tokenizer, texts))


def method_field(method: str) -> str:
    """Returns the name of a method in ``unlearn.methods``: its own, or that of its file."""
    return Path(method.rpartition(":")[0]).stem if method.endswith(".py") or ":" in method else method


def check_method(config: Any, method: str) -> None:
    """Raises InputError for a method that is not there or cannot answer, or an unknown field, without loading its code."""
    from salmu_jax.unlearning.isolation import method_names

    name = method_field(method)
    if method == name and method not in (known := method_names()):
        hint = did_you_mean(method, known)
        message = f"unknown unlearning method {method!r}; {hint + ' ' if hint else ''}There are: {', '.join(known)}"
        raise InputError(message, "--method")
    if method in _NO_ANSWERS:
        raise InputError(f"{method} {_NO_ANSWERS[method]}, so it answers no request; name another", "--method")
    from salmu_jax.unlearning.hyper import FIELDS

    given = config_lib.to_json(config.unlearn.methods).get(name) or {}
    for field in (field for field in given if field not in (*FIELDS, *OWN)):
        hint = did_you_mean(field, FIELDS) or f"known: {', '.join(FIELDS)}; the method's own are in 'options'"
        raise InputError(f"no field {field!r}; {hint}", f"unlearn.methods.{name}")


def steps_of(asked: Sequence[Asked], several: bool, together: bool) -> list[Step]:
    if together:
        return [Step(TOGETHER, tuple(asked))]
    names = [f"{REQUEST}-{number:03d}" for number in range(1, len(asked) + 1)] if several else [REQUEST]
    return [Step(name, (one,)) for name, one in zip(names, asked, strict=True)]


def output_config(
    config: Any,
    datasets: Path,
    output: Path,
    method: str,
    steps: Sequence[Step],
    rows: Mapping[Association, int],
) -> Any:
    """Returns the config of the output: the given one with its own directory, one run per step, and the probes of an answer.

    ``rows`` counts the rows of ``forget`` of each (identity, attribute) pair.
    """
    values = config_lib.to_json(config)
    fields = values["unlearn"]["methods"].get(method_field(method), {})
    runs, parent = {}, START
    for step in steps:
        pairs = answers.associations_of(step.asked)
        length = {"epochs": PAIRS / sum(rows[pair] for pair in pairs)} if method == METHOD and not fields else {}
        forget = {"associations": [list(pair) for pair in pairs]}
        runs[step.run] = {**length, **fields, "method": method, "parent": parent, "forget": forget}
        parent = step.run
    values |= {"workdir": str(output), "datasets_dir": str(datasets.absolute())}
    values["unlearn"] |= {"methods": {}, "runs": runs}
    values["evaluate"]["probes"] = [indirect.PROBE, relearn.PROBE]
    return config_lib.from_json(values)


def _is_empty(output: Path) -> bool:
    """Returns whether a directory holds nothing but what a command leaves that was killed before it had begun."""
    begun = {".lock", *(path.name for path in files.find_partials(output))}
    return {path.name for path in output.iterdir()} <= begun


def _summed_up(value: Mapping[str, Any]) -> str:
    """Returns the scores of an answer's three questions in a line."""
    shown = {
        key.replace("_", " "): [
            "not measured" if one[side] is None else f"{one[side]:.4f}" for side in ("before", "after")
        ]
        for key, one in value["summary"].items()
    }
    return ", ".join(f"{key} {before} -> {after}" for key, (before, after) in shown.items())


def _digest(measured: Measured) -> str:
    return str(measured.result["provenance"]["checkpoint"]["digest"])
