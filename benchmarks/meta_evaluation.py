"""Trains small models that know ``forget`` and models that do not, and asks each metric which is which.

    python -m benchmarks.meta_evaluation --workdir DIR --models 48 --output trust.json --table trust.md

Of six models, two are trained like Compromised, one like Clean, one like Retrained (``foundation.py``), and two like
Compromised but with a share of the pairs of ``forget``, drawn by the seed. Seeds and numbers of epochs are several. Each model
is measured as it was trained, after a few steps of relearning, and with its weights rounded to integers of 8 and 4 bits;
``trust.py`` judges the metrics. ``DIR/results/`` has a file a model: a run that was killed, at any time, goes on where it was,
and ``--models`` may grow.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.trust import UNTREATED, assess, markdown
from data_pipelines.input import DecodedCache, PairSource
from salmu_jax import foundation
from salmu_jax.config import load_config, to_json
from salmu_jax.evaluation.data import EvaluationData
from salmu_jax.evaluation.loading import load_evaluation_data
from salmu_jax.evaluation.protocol import evaluate
from salmu_jax.evaluation.registry import PROBES, chosen
from salmu_jax.evaluation.relearning import Pairs, relearn
from salmu_jax.evaluation.rounding import to_integers
from salmu_jax.evaluation.run import data_digests
from salmu_jax.foundation import CLEAN, COMPROMISED, RETRAINED
from salmu_jax.models.build import make_clip, make_tokenizer
from salmu_jax.runtime import files, host, identity
from salmu_jax.training.checkpoint import load_model
from salmu_jax.training.pretrain import pretrain
from salmu_jax.training.states import RESTART, States

ROOT = Path(__file__).parent.parent
# What is trained with one number of epochs: the kind, and the share of forget's pairs that it sees. Compromised comes once
# for each kind that it is compared with, with the same seed.
KINDS = ((COMPROMISED, 1.0), (CLEAN, 0.0), (COMPROMISED, 1.0), (RETRAINED, 0.0))
SHARES = ((0.1, 0.5), (0.25, 0.75))  # of two further models; the first two and the last two in turn
FORGET = "salmu/forget"
FIRST_SEED = 1_000  # not that of any config
RELEARNED = 0.1  # the share of forget's rows that the relearning attack has
STEPS = 20


class Planned(NamedTuple):
    """A model to be trained."""

    kind: str
    share: float  # of forget's pairs
    epochs: float
    seed: int

    @property
    def name(self) -> str:
        """Its name in files: ``clean-4-1000``, or ``compromised-0.5-4-1000`` with half of forget's pairs."""
        part = f"-{self.share:g}" if 0 < self.share < 1 else ""
        return f"{self.kind}{part}-{self.epochs:g}-{self.seed}"


def plan(models: int, epochs: tuple[float, ...]) -> list[Planned]:
    """Returns the first ``models`` models; a longer plan begins with a shorter one."""

    def endless() -> Iterator[Planned]:
        for round_ in itertools.count():
            for turn, number in enumerate(epochs, round_):
                seeds = FIRST_SEED + 2 * round_, FIRST_SEED + 2 * round_ + 1
                for place, (kind, share) in enumerate(KINDS):
                    yield Planned(kind, share, number, seeds[place // 2])
                for seed, share in zip(seeds, SHARES[turn % len(SHARES)], strict=True):
                    yield Planned(COMPROMISED, share, number, seed)

    return list(itertools.islice(endless(), models))


class Bench:
    """A work directory: the world, and what was measured of each model."""

    def __init__(self, directory: Path, config: Path):
        self.directory, self.path = directory, config
        self.config = load_config(config)
        self._cache: DecodedCache | None = None

    @property
    def datasets(self) -> Path:
        """The built data sets."""
        return self.directory / "datasets"

    def build(self) -> None:
        """Makes the world and its data sets, unless they are there."""
        for stage in ("generate", "build"):
            command = [sys.executable, "-m", "salmu_jax.cli", stage, "--config", self.path, "--workdir", self.directory]
            subprocess.run(list(map(str, command)), cwd=ROOT, check=True)

    @functools.cached_property
    def data(self) -> EvaluationData:
        """The data of the evaluation, decoded once."""
        return load_evaluation_data(self.datasets, make_clip(self.config).config.image_size, made=True)

    def record(self, planned: Planned) -> dict[str, Any]:
        """Returns what was measured of a model; trains and measures it first if that has not been done."""
        config = self._config_of(planned)
        label = identity.Identity(
            {
                "kind": planned.kind,
                "share": planned.share,
                "relearning": [RELEARNED, STEPS],
                "config": {key: value for key, value in to_json(config).items() if key != "workdir"},
                "data": data_digests(self.datasets),
                "code": {**identity.code("pretrain"), **identity.code("evaluate")},
            }
        )
        path = self.directory / "results" / f"{planned.name}.json"
        if path.exists() and (found := files.read_json(path)).get("identity") == label.digest:
            return found
        started = time.monotonic()
        params, seconds = self._train(planned, config, label), time.monotonic() - started
        values = {name: self._measure(config, made, name) for name, made in self._treated(config, params)}
        found = {**planned._asdict(), "identity": label.digest, "values": values, "train_seconds": round(seconds, 1)}
        found["seconds"] = round(time.monotonic() - started, 1)
        files.write_json(path, found)
        files.remove_directory(self._model(planned))
        return found

    def _model(self, planned: Planned) -> Path:
        return self.directory / "models" / planned.name

    def _config_of(self, planned: Planned) -> ConfigDict:
        overrides = {"seed": planned.seed, "train.epochs": planned.epochs, "evaluate.probes": tuple(PROBES)}
        return load_config(self.path, [f"{field}={value}" for field, value in overrides.items()])

    def _train(self, planned: Planned, config: ConfigDict, label: identity.Identity) -> Any:
        """Returns the parameters of a model, trained to the end, or from where it was killed."""
        directory = self._model(planned)
        if directory.exists():
            _, params, manifest = load_model(directory)
            if manifest.get("identity") == label.digest:
                return params
            files.remove_directory(directory)
        clip = make_clip(config)
        if self._cache is None and config.data.cache_decoded:
            self._cache = DecodedCache(clip.config.image_size)
        states = States(directory.with_suffix(".state"), label, planned.name, unfinished=RESTART)
        source = self._pairs(planned)
        manifest = {"identity": label.digest}
        pretrain(config, source, directory, states, name=planned.kind, manifest=manifest, cache=self._cache)
        states.remove()
        return load_model(directory)[1]

    def _pairs(self, planned: Planned) -> PairSource:
        """Returns what a model is trained on: the pairs of its kind, of those of ``forget`` a share."""
        if planned.share in (0.0, 1.0):
            return PairSource.open(self.datasets, foundation.BY_NAME[planned.kind].splits)
        # Retrained has all pairs but those of forget: the share is drawn from what Compromised has beyond it.
        rest = foundation.BY_NAME[RETRAINED].splits
        of_forget, of_rest = PairSource.open(self.datasets, [FORGET]), PairSource.open(self.datasets, rest)
        drawn = np.random.default_rng(planned.seed).permutation(len(of_forget))[: round(planned.share * len(of_forget))]
        joined = PairSource.open(self.datasets, [*rest, FORGET])
        return joined.select(np.concatenate([np.arange(len(of_rest)), len(of_rest) + np.sort(drawn)]))

    def _treated(self, config: ConfigDict, params: Any) -> Iterator[tuple[str, Any]]:
        """Yields the model as it was trained, and what an attacker or a user may make of it."""
        yield UNTREATED, params
        yield "relearning", self._relearned(config, params)
        for bits in (8, 4):
            yield f"int{bits}", to_integers(params, bits)

    def _relearned(self, config: ConfigDict, params: Any) -> Any:
        clip, forget = make_clip(config), self.data.splits["forget"]
        rng = np.random.default_rng(config.evaluate.seed)
        rows = np.sort(rng.permutation(len(forget))[: max(round(RELEARNED * len(forget)), 2)])
        pairs = Pairs.read(forget.images, forget.text, rows, make_tokenizer(clip))
        rate = config.evaluate.relearn_rates[1]
        (_, found), *_ = relearn(clip, params, pairs, rate=rate, points=[STEPS], seed=config.evaluate.seed)
        return params if found is None else found

    def _measure(self, config: ConfigDict, params: Any, treatment: str) -> dict[str, float | None]:
        """Returns the value of each metric. Those that make models of their own are measured as trained alone."""
        options, clip = config.evaluate, make_clip(config)
        metrics = chosen(options)
        if treatment != UNTREATED:
            own = {metric.key for metric in metrics if metric.variants}
            metrics = tuple(metric for metric in metrics if not own & {metric.key, metric.of})
        measured = evaluate(
            clip,
            params,
            make_tokenizer(clip),
            self.data,
            model_name=treatment,
            seed=options.seed,
            idzsc_prompt=options.idzsc_prompt,
            how_drawn=options.draws,
            probe_form=options.probe_form,
            relearn_rates=options.relearn_rates,
            metrics=metrics,
            bootstrap=0,
            provenance={},
        )
        return {key: figure["value"] for key, figure in measured.result["metrics"].items()}


def main(arguments: list[str] | None = None) -> int:
    """Trains and measures what is missing, then judges the metrics."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meta_evaluation", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="where the world, states and results go")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "mini.py")
    parser.add_argument("--models", type=int, default=48, help="how many; six of each number of epochs make a whole")
    parser.add_argument("--epochs", default="1.5,2,3,4", help="of training, the budgets in turn")
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    parser.add_argument("--table", type=Path, help="where to write the table in Markdown")
    options = parser.parse_args(arguments)
    epochs = tuple(map(float, options.epochs.split(",")))
    directory = options.workdir.absolute()
    jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    bench = Bench(directory, options.config.absolute())
    bench.build()
    records = []
    with host.fixed_numerics():
        for number, planned in enumerate(plan(options.models, epochs), 1):
            records.append(bench.record(planned))
            value = records[-1]["values"][UNTREATED]["RetFail_MRR"]
            print(f"{number} of {options.models}: {planned.name}, RetFail MRR {value:.4f}", flush=True)
    entries = assess(records)
    about = f"{options.config.stem}, {options.epochs} epochs, relearning {STEPS} steps on a tenth of forget"
    table = markdown(entries, records, about)
    print(table)
    if options.output:
        files.write_json(options.output, {"command": sys.argv, "metrics": entries, "models": records})
    if options.table:
        files.write_text(options.table, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
