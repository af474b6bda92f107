"""Checks one result: each function yields every problem that it finds, a line each, and raises nothing.

The fields have passed the schema, and the row scores have the arrays that the protocol requires. Here the parts of a result
are compared with each other: bounds, draws, counts, figures, caveats, lineage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax import foundation
from salmu_jax.evaluation import draws
from salmu_jax.evaluation.caveats import TIES, caveats
from salmu_jax.evaluation.data import FIELDS
from salmu_jax.evaluation.registry import REQUIRED, columns_of, measured
from salmu_jax.evaluation.rows import POOL_SIZE, SUBSETS, TARGETS, RowScores, subset_rows
from salmu_jax.evaluation.schema import SCHEMAS
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.text import safe_text

REFERENCES = foundation.NAMES
DATA = ("salmu", "zeroshot")  # the built data sets that an evaluation reads
TOLERANCE = 1e-9  # of means and intervals: another machine may sum in another order
COSINE_SLACK = 1e-5  # of a cosine beyond 1, by the rounding of float32
_PERMITTED = ("salmu/forget", "salmu/retain_synth", "retain_pairs/train")  # what a method may read

Result = Mapping[str, Any]


def metric_problems(protocol: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each metric that every result has and this one lacks; then nothing else can be checked."""
    for metric in REQUIRED:
        version = protocol["metrics"].get(metric.key)
        if version is None:
            yield f"'protocol > metrics' lacks {metric.key}, which every result has"
        elif version != metric.version:
            yield (
                f"'protocol > metrics > {metric.key}' is version {version}, this version of salmu_jax computes"
                f" {metric.version}: verify it with the one that measured it, or evaluate again"
            )


def row_problems(rows: RowScores, protocol: Mapping[str, Any]) -> Iterator[str]:
    """Yields row scores that are out of range, or inconsistent with each other, the counts, or the draws of the seed."""
    columns = columns_of(measured(protocol))
    for name in (name for name, column in columns.items() if column.kind == "cosine"):
        with np.errstate(invalid="ignore"):
            yield from _rows_where(~(np.abs(rows[name]) <= 1 + COSINE_SLACK), rows[name], name, "a cosine from -1 to 1")
    for name in (name for name, column in columns.items() if column.kind == "share"):
        yield from _rows_where(~((rows[name] >= 0) & (rows[name] <= 1)), rows[name], name, "a share from 0 to 1")
    retain = len(rows["retain_synth.gallery"])
    for split in TARGETS:
        rank, left_out, gallery = (rows[f"{split}.{name}"] for name in ("rank", "left_out", "gallery"))
        size = 1 + len(gallery) + retain
        outside = (rank < 1) | (rank > size - left_out)
        yield from _rows_where(outside, rank, f"{split}.rank", f"a rank within its gallery of at most {size}")
        least = np.isin(np.arange(len(rank)), gallery)  # a row that was drawn meets its own caption in the pool
        wrong = (left_out < least) | (left_out > len(gallery) + retain)
        yield from _rows_where(wrong, left_out, f"{split}.left_out", "a number of captions of the pools")
    for split, kind in (("forget", "forget_"), ("holdout_association", "holdout_a"), ("holdout_identity", "holdout_i")):
        yield from _codes(rows, split, [code for code, name in enumerate(SUBSETS) if name.startswith(kind)])
    yield from _codes(rows, "retain_synth", [code for code, name in enumerate(SUBSETS) if name.startswith("retain_")])
    yield from _class_problems(rows, protocol)
    spared = ~rows["forget.has_generic"] & (rows["forget.generic"] != 0)
    yield from _rows_where(spared, rows["forget.generic"], "forget.generic", "0, as there is no generic caption")
    yield from draw_problems(rows, protocol)
    for metric in measured(protocol):
        if metric.check:
            yield from metric.check(rows, protocol)


def computable(rows: RowScores) -> bool:
    """Returns whether figures can be computed from these row scores at all."""
    finite = all(np.isfinite(values).all() for values in rows.values() if values.dtype.kind == "f")
    return finite and all((rows[f"{split}.rank"] > 0).all() for split in TARGETS)


def draw_problems(rows: RowScores, protocol: Mapping[str, Any]) -> Iterator[str]:
    """Yields draws that are not those of the seed: pools of distractors, and the captions of shuffled pairs."""
    seed, how = protocol["seed"], protocol["draws"]
    counts = {split: len(rows[f"{split}.rank"]) for split in TARGETS}
    counts["retain_disjoint"] = subset_rows(rows)["retain_disjoint"]
    try:
        pools = draws.draw_pools(counts, POOL_SIZE, seed, how)
    except ValueError:  # the released evaluator's generator takes seeds of 32 bits
        yield f"'protocol > seed' is {seed}, with which nothing can be drawn as {how!r}"
        return
    drawn = {
        **{f"{split}.gallery": pools[split] for split in TARGETS},
        "retain_synth.gallery": pools["retain_disjoint"],
        "forget.negative_row": draws.draw_negatives(counts["forget"], seed),
    }
    wrong = [name for name, expected in drawn.items() if not np.array_equal(rows[name], expected)]
    if wrong:
        yield f"{', '.join(wrong)}: not what seed {seed} draws; the rows were measured with another seed, or edited"
        return
    own = rows["forget.negative_row"] == np.arange(len(rows["forget.rank"]))
    differ = own & (np.abs(rows["forget.negative"] - rows["forget.similarity"]) > COSINE_SLACK)
    yield from _rows_where(differ, rows["forget.negative"], "forget.negative", "the similarity with its own caption")


def protocol_problems(protocol: Mapping[str, Any], rows: RowScores) -> Iterator[str]:
    """Yields fields of the protocol that contradict the row scores or each other."""
    gallery_forget, gallery_retain = len(rows["forget.gallery"]), len(rows["retain_synth.gallery"])
    task = protocol["genknow"]
    classes = task["classes"]
    expected = {
        "gallery": 1 + gallery_forget + gallery_retain,
        "gallery_forget": gallery_forget,
        "gallery_retain": gallery_retain,
        "rows_with_smaller_gallery": int((rows["forget.left_out"] > 0).sum()),
        "ties": TIES,
        "genknow": {**task, "chance": 1 / classes if classes else None},
        "rows": {**protocol["rows"], **subset_rows(rows)},
    }
    yield from differences(expected, {key: protocol[key] for key in expected}, "protocol")
    if "{name}" not in protocol["idzsc_prompt"]:
        yield "'protocol > idzsc_prompt' does not hold {name}"
    if (task["dataset"] is None) != (classes == 0) or (classes == 0) != (task["images"] == 0):
        yield "'protocol > genknow' must name a data set with classes and images, or null, 0 and 0"


def figure_problems(result: Result, rows: RowScores, figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields figures and caveats that do not follow from the row scores and the protocol.

    ``figures`` is what :func:`~salmu_jax.evaluation.aggregate.aggregate` computes of them. Metrics that this version does not
    know are passed over, and all of ``metrics`` in a result of schema 2, which has none.
    """
    protocol = result["protocol"]
    slack: dict[str, float] = {}
    for metric in measured(protocol):
        if metric.slack and (spread := metric.slack(rows, protocol)):
            slack |= dict.fromkeys([f"metrics > {metric.key} > {name}" for name in ("value", "interval")], spread)
            slack[" > ".join(metric.released or ("extra", *(metric.extra or ())))] = spread
    for section in ("efficacy", "utility", "extra"):
        yield from differences(figures[section], result.get(section), section, slack)
    if result["schema"] != SCHEMAS[0]:
        given = result.get("metrics")
        given = given if isinstance(given, dict) else {}
        known = {key: value for key, value in given.items() if key in figures["metrics"]}
        yield from differences(figures["metrics"], known, "metrics", slack)
        if odd := sorted(set(given) ^ set(protocol["metrics"])):
            yield f"'metrics' and 'protocol > metrics' do not name the same metrics: {listed(map(safe_text, odd), 3)}"
    if result.get("caveats") != (wanted := caveats(protocol, figures["metrics"])):
        found = result.get("caveats")
        found = found if isinstance(found, list) else []
        missing = [line for line in wanted if line not in found]
        added = [line for line in found if line not in wanted]
        detail = [f"missing: '{safe_text(line, 60)}'" for line in missing]
        detail += [f"not of ours: '{safe_text(line, 60)}'" for line in added]
        yield f"'caveats' are not those of its protocol ({'; '.join(detail) or 'another order'})"


def is_copy_by_declaration(checkpoint: Mapping[str, Any]) -> bool:
    """Returns whether a result says that its model is its parent, unchanged, and it is: the run of ``no_op``, a control."""
    return _is_no_op(checkpoint) and checkpoint.get("digest") == checkpoint.get("parent")


def _is_no_op(checkpoint: Mapping[str, Any]) -> bool:
    run = checkpoint.get("run")
    return isinstance(run, dict) and run.get("method") == "no_op"


def lineage_problems(result: Result, references: Sequence[str] = REFERENCES) -> Iterator[str]:
    """Yields a lineage, or splits read, that a model of this name cannot have; ``references`` are trained from scratch."""
    model, provenance = result["model"], result["provenance"]
    checkpoint = provenance.get("checkpoint")
    if checkpoint is None:
        yield "'provenance' does not say which checkpoint was evaluated (no field 'checkpoint')"
        return
    digest, parent, root = (checkpoint.get(key) for key in ("digest", "parent", "root"))
    name, read = checkpoint.get("name"), checkpoint.get("splits_read")
    if name in references and name != model:
        yield f"the checkpoint is that of {name!r}, handed in as {model!r}"
    source = checkpoint.get("source")
    published = str(source.get("published")) if isinstance(source, dict) else ""
    if (reference := published.rpartition("-")[2]) in references and reference != model:
        yield f"the checkpoint is the published {safe_text(published)}, handed in as {model!r}"
    if model in references:
        if parent is not None or root not in (None, digest):
            yield f"{model!r} is trained from scratch, but its checkpoint has a parent ({(parent or root)[:12]}...)"
    elif parent == digest and not is_copy_by_declaration(checkpoint):
        yield "the checkpoint is its own parent"
    elif parent != digest and _is_no_op(checkpoint):
        yield "the run's method is 'no_op', which changes nothing, but the checkpoint is not its parent"
    elif parent is None and root is None and read is not None:
        yield "the checkpoint names no parent; a method's model descends from the Compromised one"
    if read is None:
        return
    if known := foundation.BY_NAME.get(model):
        yield from (f"{model!r} has read none of {', '.join(parts)}" for parts in known.unread(read))
        if others := known.not_its_own(read):
            yield f"{model!r} has read {', '.join(others)}"
    if model not in references and (seen := [split for split in read if split not in _PERMITTED]):
        yield f"the method read {', '.join(map(safe_text, seen[:5]))}; it may read {', '.join(_PERMITTED)}"


def data_problems(result: Result) -> Iterator[str]:
    """Yields data digests that are missing, or that contradict the protocol."""
    data, task = result["provenance"].get("data") or {}, result["protocol"]["genknow"]["dataset"]
    if data.get("salmu") is None:
        yield "'provenance' does not say which data were evaluated (no digest 'data > salmu')"
    elif (data.get("zeroshot") is None) != (task is None):
        digest = "no digest" if data.get("zeroshot") is None else "a digest"
        yield f"'provenance > data' has {digest} of 'zeroshot', but 'protocol > genknow > dataset' is {_brief(task)}"


def made_problems(protocol: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yields a line if ``made`` contradicts the config, where an empty ``world_dir`` means a made world."""
    world = config.get("world_dir")
    if isinstance(world, str) and protocol["made"] != (not world):
        yield f"'protocol > made' is {_brief(protocol['made'])}, but in {where} 'world_dir' is {_brief(world)}"


def config_problems(result: Result) -> Iterator[str]:
    """Yields fields of the protocol that differ from the recorded config."""
    config, protocol = result["provenance"].get("config"), result["protocol"]
    config = config if isinstance(config, dict) else {}
    evaluate = config.get("evaluate")
    given = {"seed": config.get("seed"), **(evaluate if isinstance(evaluate, dict) else {})}
    for key in ("seed", "draws", "idzsc_prompt", "bootstrap", "probe_form"):
        if given.get(key) is not None and given[key] != protocol.get(key):
            shown, configured = (safe_text(value, 40) for value in (protocol.get(key), given[key]))
            yield f"'protocol > {key}' is {shown}, in 'provenance > config' it is {configured}"
    yield from made_problems(protocol, config, "'provenance > config'")


def differences(expected: Any, found: Any, field: str, slack: Mapping[str, float] | None = None) -> Iterator[str]:
    """Yields where ``found`` differs from ``expected``, numbers by more than :data:`TOLERANCE` plus ``slack`` of the field."""
    tolerance = TOLERANCE + (slack or {}).get(field, 0.0)
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            inner = f"{field} > {safe_text(key, 60)}"
            if key not in found:
                yield f"'{inner}' is missing; the row scores give {_brief(expected[key])}"
            elif key not in expected:
                yield f"'{inner}' is {_brief(found[key])}; the row scores give no such figure"
            else:
                yield from differences(expected[key], found[key], inner, slack)
    elif isinstance(expected, list) and isinstance(found, list):
        pairs = () if expected == found else enumerate(zip(expected, found, strict=False))
        wrong = [row for row, (a, b) in pairs if not _same(a, b, 0)]
        if len(expected) != len(found):
            yield f"'{field}' has {len(found):,} entries; the row scores have {len(expected):,}"
        elif wrong and len(expected) == 2:
            if not all(_same(a, b, tolerance) for a, b in zip(expected, found, strict=True)):
                yield f"'{field}' is {_brief(found)}; the row scores give {_brief(expected)}"
        elif wrong:
            more = f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
            row = wrong[0]
            yield f"'{field}' is {_brief(found[row])} in row {row}, the row score is {_brief(expected[row])}{more}"
    elif not _same(expected, found, tolerance):
        yield f"'{field}' is {_brief(found)}; the row scores give {_brief(expected)}"


def _same(expected: Any, found: Any, tolerance: float) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (expected, found)]
    if all(numbers):
        return math.isclose(expected, found, rel_tol=0, abs_tol=tolerance)
    return type(expected) is type(found) and expected == found


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list) and len(value) <= 2:
        return f"[{', '.join(map(_brief, value))}]"
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return "null" if value is None else f"'{safe_text(value, 40)}'" if isinstance(value, str) else safe_text(value, 40)


def _rows_where(wrong: np.ndarray, values: np.ndarray, name: str, wanted: str) -> Iterator[str]:
    """Yields one line for all wrong rows of a column, with the first of them."""
    if wrong.any():
        row, count = int(np.flatnonzero(wrong)[0]), int(wrong.sum())
        more = f" (and {count - 1:,} more rows)" if count > 1 else ""
        yield f"row scores '{name}' row {row} is {values[row]}, not {wanted}{more}"


def _codes(rows: RowScores, split: str, subsets: list[int]) -> Iterator[str]:
    field, subset, identity = (rows[f"{split}.{name}"] for name in ("data_field", "subset", "identity"))
    yield from _rows_where((field < -1) | (field >= len(FIELDS)), field, f"{split}.data_field", "an attribute's number")
    yield from _rows_where(~np.isin(subset, [-1, *subsets]), subset, f"{split}.subset", f"a subset of {split}")
    yield from _rows_where(identity < -1, identity, f"{split}.identity", "an identity's number")


def _class_problems(rows: RowScores, protocol: Mapping[str, Any]) -> Iterator[str]:
    """Yields labels and predictions outside of their classes, and identities that are not those of their rows."""
    whole = rows["forget.subset"] == SUBSETS.index("forget_identity")
    people, labels = np.unique(rows["forget.identity"][whole], return_inverse=True)
    if len(labels) == len(rows["idzsc.label"]):  # else the counts are complained of
        wrong = rows["idzsc.label"] != labels
        yield from _rows_where(wrong, rows["idzsc.label"], "idzsc.label", "the identity of its row")
    for name, classes in (
        ("idzsc.prediction", len(people)),
        ("genknow.label", protocol["genknow"]["classes"]),
        ("genknow.prediction", protocol["genknow"]["classes"]),
    ):
        outside = (rows[name] < 0) | (rows[name] >= classes)
        yield from _rows_where(outside, rows[name], name, f"one of {classes:,} classes")
