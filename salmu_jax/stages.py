"""Runs the stages of the benchmark; each reads the directories of earlier stages and writes its own.

    generate -> build -> pretrain (a foundation model each) -> unlearn (a method each) -> evaluate (a model each) -> report

Every stage can be run alone; if its input is missing, it says which stage makes it. An output is reused if it was made from
the same values, code and inputs, and is intact (``identity.py``). Inputs are checked before they are used: data, the parent
of a model and the model of a result are compared with what was recorded when they were made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salmu_jax import config as config_lib
from salmu_jax import foundation
from salmu_jax.chain import Chain, need
from salmu_jax.runtime import contents, distributed, files, processes
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import Identity, code
from salmu_jax.runtime.text import safe_text, safe_value
from salmu_jax.runtime.workspace import Workspace, provenance, say
from salmu_jax.unlearn_stage import Unlearning

if TYPE_CHECKING:
    from salmu_jax.evaluation.variants import Other
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
        self._cache: Any = None
        self._evaluator_of_all: Any = None
        self._compromised_models: dict[str, Other] = {}  # the latest, by its digest

    # Making the data ----------------------------------------------------------------------------------------------------

    def generate(self) -> None:
        """Makes the world, unless the config names one."""
        workspace, config = self.workspace, self.config
        if config.world_dir:
            say(f"generate: not needed, the config's world_dir is {workspace.world}")
            return
        from data_pipelines.world.generate import GENERATOR_VERSION

        parameters = config_lib.section(config, "world")["world"]
        workers = parameters.pop("workers")  # the world does not depend on their number
        fields = {"generator": GENERATOR_VERSION, "world": parameters, "code": code("generate")}
        with workspace.stage("generate", workspace.world, fields) as identity:
            if identity:
                distributed.from_main(lambda: self._generate(workers, parameters))

    def _generate(self, workers: int, parameters: Mapping[str, Any]) -> None:
        from data_pipelines.world.generate import generate_world

        with _progress("generate", "pictures") as progress:
            world = generate_world(self.workspace.world, workers=workers, progress=progress, **parameters)
        counts = ", ".join(f"{count:,} {name}" for name, count in world["counts"]["subsets"].items())
        say(f"generate: {counts}")

    def build(self, strict: bool = False) -> None:
        """Checks the world and converts it to TFDS data sets; ``strict`` also refuses harmless deviations."""
        workspace = self.workspace
        need(workspace.world, "salmu generate", "or name a directory in the released layout as 'world_dir'")
        zeroshot = self.config.zeroshot_dir
        if zeroshot and not Path(zeroshot).is_dir():
            message = f"no such directory: {zeroshot}; name that of a zero-shot set, or none (--config.zeroshot_dir=)"
            raise InputError(f"{message} to use the world's own or go without GenKnow", "zeroshot_dir")

        distributed.from_main(self._check_names)
        fields = {
            "world": self.chain.world(),
            **({"zeroshot": self.chain.foreign(Path(zeroshot))} if zeroshot else {}),
            **({"strict": True} if strict else {}),  # recheck what passed without it
            "code": code("build"),
        }
        inputs = [workspace.world, *([Path(zeroshot)] if zeroshot else [])]
        with workspace.stage("build", workspace.datasets, fields, inputs=inputs) as identity:
            if identity:
                distributed.from_main(lambda: self._build(strict))

    def _check_names(self) -> None:
        """Refuses a directory whose names show that it is not a world or zero-shot set, before reading it for its digest."""
        from data_pipelines.layout import find_root, read_zeroshot

        find_root(self.workspace.world)
        if self.config.zeroshot_dir:
            read_zeroshot(self.config.zeroshot_dir)

    def _build(self, strict: bool) -> None:
        from data_pipelines.builders import build_datasets

        summary = build_datasets(
            self.workspace.world,
            self.workspace.datasets,
            zeroshot_dir=self.config.zeroshot_dir or None,
            strict=strict,
            progress=lambda line: say(f"build: {line}"),
        )
        rows = {f"{name}/{split}": n for name, data in summary.items() for split, n in data["splits"].items()}
        counts = ", ".join(f"{count:,} {split}" for split, count in rows.items())
        say("; ".join([f"build: {counts}", *(f"let pass: {line}" for line in summary.oddities)]))

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
        """Computes all metrics of a model of this workspace, or of ``checkpoint`` under the name ``name``.

        A checkpoint is a model directory, or PyTorch weights of OpenCLIP or transformers, a file or a directory; ``form`` are
        the options ``architecture``, ``image_size`` and ``allow_half`` of ``load_foreign``.
        """
        from salmu_jax.evaluation.caveats import not_measured
        from salmu_jax.evaluation.protocol import evaluate, write_result
        from salmu_jax.evaluation.registry import chosen
        from salmu_jax.evaluation.rows import rows_path
        from salmu_jax.evaluation.run import check_new_name
        from salmu_jax.interop.foreign import is_foreign, load_foreign
        from salmu_jax.models.build import make_clip, make_tokenizer
        from salmu_jax.training.checkpoint import load_model

        workspace, config = self.workspace, self.config
        if checkpoint is None:
            self._check_known(name)
        else:
            check_new_name(name, self._reserved_names())
        data = self.chain.data("salmu", "zeroshot")
        evaluator = self.evaluator()
        directory = checkpoint or workspace.model(name)
        clip, params = make_clip(config), None
        if is_foreign(directory):
            theirs, params, manifest = load_foreign(directory, **form)
            dtype = config.model.compute_dtype
            clip = dataclasses.replace(clip, config=dataclasses.replace(theirs.config, compute_dtype=dtype))
        elif given := [name for name, value in form.items() if value is not None and value is not False]:
            # Any given value is refused, also 0 and ''.
            raise InputError(
                "is for PyTorch weights from elsewhere; a model directory says itself what it is",
                f"--{given[0].replace('_', '-')}",
            )
        elif checkpoint is not None:  # read in full, since only its own manifest tells whether it is intact
            _, params, manifest = load_model(directory, clip.config)
        else:
            manifest = self.chain.trusted(name, data)
        fields = self.chain.evaluate_fields(manifest, data)
        outputs = {"output": workspace.result(name), "beside": [rows_path(workspace.result(name))]}
        inputs = [workspace.datasets, directory]

        with (
            workspace.result_locked(name),
            workspace.stage(f"evaluate {name}", fields=fields, inputs=inputs, **outputs) as identity,
        ):
            if not identity:
                return
            if params is None:
                _, params, manifest = load_model(directory, clip.config)
            tokenizer = make_tokenizer(clip)
            label, digest = f"evaluate {name}", manifest["digest"]
            other = self._compromised(clip, manifest, data) if fields["compromised"] else None
            measured = evaluator.measure(
                label, clip, params, tokenizer, digest, compromised=other, rerun=workspace.rerun
            )

            def score() -> None:
                result = evaluate(
                    clip,
                    params,
                    tokenizer,
                    evaluator.data(clip.config.image_size),
                    model_name=name,
                    seed=config.evaluate.seed,
                    idzsc_prompt=config.evaluate.idzsc_prompt,
                    bootstrap=config.evaluate.bootstrap,
                    how_drawn=config.evaluate.draws,
                    probe_form=config.evaluate.probe_form,
                    relearn_rates=config.evaluate.relearn_rates,
                    metrics=chosen(config.evaluate),
                    embeddings=measured.embeddings,
                    variants=measured.variants,
                    provenance={
                        **provenance(config_lib.to_json(config)),
                        "checkpoint": {
                            **{key: manifest.get(key) for key in ("digest", "parent", "name", "splits_read")},
                            **{key: manifest[key] for key in ("root", "source", "run") if key in manifest},
                            "architecture": contents.architecture_digest(manifest),
                        },
                        "data": evaluator.digests,
                        **({"compromised": other.digest} if other else {}),
                    },
                )
                write_result(workspace.result(name), *result)
                for line in not_measured(result.result["protocol"], result.result["metrics"]):
                    say(f"{label}: {line}")

            distributed.from_main(score)

    def _compromised(self, clip: Any, manifest: Mapping[str, Any], data: Mapping[str, str | None]) -> Other | None:
        """Returns the Compromised of this workspace, to move variants towards; None if it has another architecture."""
        from salmu_jax.evaluation.variants import Other
        from salmu_jax.training.checkpoint import load_model

        theirs = self.chain.trusted(foundation.COMPROMISED, data)
        if contents.architecture_digest(theirs) != contents.architecture_digest(manifest):
            return None
        if theirs["digest"] not in self._compromised_models:
            params = load_model(self.workspace.model(foundation.COMPROMISED), clip.config)[1]
            self._compromised_models = {theirs["digest"]: Other(theirs["digest"], params)}
        return self._compromised_models[theirs["digest"]]

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
                self._check_known(name)
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

    def _check_known(self, name: str) -> None:
        """Raises InputError for an invalid model name."""
        from salmu_jax.unlearning.isolation import method_names

        known = dict.fromkeys([*foundation.NAMES, *self.runs, *method_names()])
        if name not in known and not self.unlearning.is_there(name):
            raise InputError(f"unknown model {safe_text(name, 80)!r}; there are: {', '.join(known)}", "--model")

    def _decoded_cache(self) -> Any:
        """Returns the decoded images that all models of this process share, if the config keeps them in memory."""
        from data_pipelines.input import DecodedCache
        from salmu_jax.models.zoo import architecture

        if self._cache is None and self.config.data.cache_decoded:
            self._cache = DecodedCache(architecture(self.config.model.architecture).image_size)
        return self._cache

    def evaluator(self) -> Any:
        """Returns the evaluator that embeds the data of this workspace."""
        from salmu_jax.evaluation.run import Evaluator

        need(self.workspace.datasets, "salmu build")
        if self._evaluator_of_all is None:
            self._evaluator_of_all = Evaluator(
                self.workspace.datasets,
                self.workspace.root / "cache",
                self.config.evaluate,
                made=not self.config.world_dir,
                keep_decoded=self.config.data.cache_decoded or None,
                say=say,
            )
        return self._evaluator_of_all

    def _reserved_names(self) -> dict[str, str]:
        """Returns the names that a foreign checkpoint may not have, and what each one names."""
        from salmu_jax.unlearning.isolation import method_names

        names = dict.fromkeys(method_names(), "a method") | dict.fromkeys(self.runs, "a run")
        return names | dict.fromkeys(foundation.NAMES, "a foundation model")


@contextlib.contextmanager
def _progress(label: str, unit: str) -> Iterator[Any]:
    """Yields a callback ``progress(done, total)`` that prints the progress of a stage."""
    from salmu_jax.runtime.progress import Progress

    bar: dict[str, Any] = {}

    def progress(done: int, total: int) -> None:
        if not bar:
            bar.update(line=Progress(label, total, unit=unit), done=0)
        bar["line"].update(done, done - bar["done"], {})
        bar["done"] = done

    yield progress
