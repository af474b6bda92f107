"""Evaluates models: those of a work directory, and checkpoints from elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salmu_jax import config as config_lib
from salmu_jax import foundation
from salmu_jax.chain import need
from salmu_jax.runtime import contents, distributed
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.text import safe_text
from salmu_jax.runtime.workspace import Workspace, provenance, say
from salmu_jax.unlearn_stage import Unlearning

if TYPE_CHECKING:
    from salmu_jax.evaluation.run import Evaluator
    from salmu_jax.evaluation.variants import Other


class Evaluation:
    """The evaluations of a work directory, whose data are opened once for all models.

    Args:
      workspace: the work directory, with its config.
      unlearning: its runs.
    """

    def __init__(self, workspace: Workspace, unlearning: Unlearning):
        self.workspace = workspace
        self.config = workspace.config
        self.runs = unlearning.runs
        self.chain = unlearning.chain
        self._unlearning = unlearning
        self._evaluator: Evaluator | None = None
        self._compromised_models: dict[str, Other] = {}  # the latest, by its digest

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
            self.check_known(name)
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
        outputs: dict[str, Any] = {"output": workspace.result(name), "beside": [rows_path(workspace.result(name))]}
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

    def check_known(self, name: str) -> None:
        """Raises InputError for an invalid model name."""
        from salmu_jax.unlearning.isolation import method_names

        known = dict.fromkeys([*foundation.NAMES, *self.runs, *method_names()])
        if name not in known and not self._unlearning.is_there(name):
            raise InputError(f"unknown model {safe_text(name, 80)!r}; there are: {', '.join(known)}", "--model")

    def evaluator(self) -> Evaluator:
        """Returns the evaluator that embeds the data of this workspace."""
        from salmu_jax.evaluation.run import Evaluator

        need(self.workspace.datasets, "salmu build")
        if self._evaluator is None:
            self._evaluator = Evaluator(
                self.workspace.datasets,
                self.workspace.root / "cache",
                self.config.evaluate,
                made=not self.config.world_dir,
                keep_decoded=self.config.data.cache_decoded or None,
                say=say,
            )
        return self._evaluator

    def _reserved_names(self) -> dict[str, str]:
        """Returns the names that a foreign checkpoint may not have, and what each one names."""
        from salmu_jax.unlearning.isolation import method_names

        names = dict.fromkeys(method_names(), "a method") | dict.fromkeys(self.runs, "a run")
        return names | dict.fromkeys(foundation.NAMES, "a foundation model")
