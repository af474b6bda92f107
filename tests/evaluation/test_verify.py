"""``salmu verify`` on one honest run, and on what can be done to it.

Every manipulation is done with care: the result's own digest and that of its row scores are written anew after it, so that
something else has to find it. That the digests find the careless kind is one more test.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from salmu_jax import cli
from salmu_jax.evaluation.aggregate import aggregate
from salmu_jax.evaluation.board import lacking, suspects
from salmu_jax.evaluation.caveats import caveats
from salmu_jax.evaluation.registry import METRICS, SCHEMA_2, columns_of
from salmu_jax.evaluation.result import seal
from salmu_jax.evaluation.rows import write_rows
from salmu_jax.evaluation.schema import SHOWN
from salmu_jax.evaluation.verify import verify_results
from salmu_jax.runtime import contents

COLUMNS = columns_of(METRICS)
MODELS = ("clean", "compromised", "delete", "finetuning")
OTHER = "e" * 64  # a digest of nothing


class Board:
    """The results of a run, to be tampered with."""

    def __init__(self, root: Path):
        self.root = root
        self.careful = True

    def path(self, model: str) -> Path:
        return self.root / "results" / f"{model}.json"

    def paths(self) -> list[Path]:
        return sorted((self.root / "results").glob("*.json"))

    def read(self, model: str) -> dict:
        return json.loads(self.path(model).read_text())

    def rows(self, model: str) -> dict[str, np.ndarray]:
        with np.load(self.root / "results" / f"{model}.rows.npz", allow_pickle=False) as archive:
            return {name: archive[name].copy() for name in COLUMNS}

    def write(self, model: str, result: dict) -> None:
        self.path(model).write_text(json.dumps(seal(result) if self.careful else result))

    def edit(self, change: Callable[[dict], object], *models: str) -> None:
        for model in models or MODELS:
            result = self.read(model)
            change(result)
            self.write(model, result)

    def set(self, field: str, value, *models: str) -> None:
        """Sets ``a > b > c``; Ellipsis removes it."""

        def change(result):
            *parents, last = field.split(" > ")
            for key in parents:
                result = result[key]
            result.pop(last) if value is ... else result.__setitem__(last, value)

        self.edit(change, *models)

    def edit_rows(self, change: Callable[[dict], object], *models: str, figures: bool = False) -> None:
        """Changes row scores, and with ``figures`` everything that follows from them."""
        for model in models or MODELS:
            rows, result = self.rows(model), self.read(model)
            change(rows)
            result["rows"] = write_rows(self.root / "results" / f"{model}.rows.npz", rows)
            if figures:
                result |= aggregate(rows, result["protocol"])
            self.write(model, result)

    def copy(self, source: str, target: str, rename: bool = True) -> None:
        """Puts one model's result in the place of another's, with or without its name in the file."""
        result = self.read(source)
        shutil.copy(self.root / "results" / f"{source}.rows.npz", self.root / "results" / f"{target}.rows.npz")
        if rename:
            result |= {"model": target, "rows": {**result["rows"], "file": f"{target}.rows.npz"}}
        self.write(target, result)

    def without_models(self) -> None:
        """Leaves nothing at hand: results as they are handed in."""
        shutil.rmtree(self.root / "models")
        shutil.rmtree(self.root / "datasets")


@pytest.fixture
def board(honest, tmp_path) -> Board:
    return Board(shutil.copytree(honest, tmp_path / "run"))


def complaints(board: Board) -> str:
    return "\n".join(line for one in verify_results(board.paths()) if one.problems for line in one.lines())


def exchange(board: Board, first: str, second: str, rename: bool) -> None:
    old, rows = board.read(first), board.rows(first)
    board.copy(second, first, rename)
    board.write(second, old | ({"model": second} if rename else {}))
    board.edit_rows(lambda values: values.update(rows), second)
    if rename:
        board.set("rows > file", f"{second}.rows.npz", second)


def lower_mrr(board, *models):
    board.set("efficacy > 1.1_RetFail > MRR", 0.001, *models)


def edit_manifest(board: Board, model: str) -> None:
    path = board.root / "models" / model / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seal": OTHER}))


def keep_rows(count: int) -> Callable[[Board], None]:
    """Deletes all but ``count`` forget rows, in the lists, in the row scores and in the counts."""

    def change(board: Board) -> None:
        def shorten(rows):
            for name in COLUMNS:
                if COLUMNS[name].length in ("forget", "gallery_forget"):
                    rows[name] = rows[name][:count]
            rows["idzsc.label"], rows["idzsc.prediction"] = rows["idzsc.label"][:0], rows["idzsc.prediction"][:0]
            rows["forget.subset"][:] = 1

        board.edit(
            lambda r: r["protocol"]["rows"].update(forget=count, forget_identity=0, forget_association=count), "delete"
        )
        board.edit(
            lambda r: r["protocol"].update(
                gallery=1 + count + r["protocol"]["gallery_retain"],
                gallery_forget=count,
                rows_with_smaller_gallery=count,
            ),
            "delete",
        )
        board.edit(lambda r: r.update(caveats=caveats(r["protocol"], r["metrics"])), "delete")
        board.edit_rows(shorten, "delete", figures=True)

    return change


def reorder(board: Board) -> None:
    """Turns all forget rows around, in every column: all means stay."""

    def turn(rows):
        for name, column in COLUMNS.items():
            if column.length == "forget" and name != "forget.negative_row":
                rows[name] = rows[name][::-1].copy()
        rows["idzsc.label"], rows["idzsc.prediction"] = rows["idzsc.label"][::-1], rows["idzsc.prediction"][::-1]

    board.edit_rows(turn, "delete", figures=True)


def from_clean(*columns: str) -> Callable[[Board], None]:
    """Takes whole columns of row scores from Clean, and all figures with them."""

    def change(board: Board) -> None:
        clean = board.rows("clean")
        board.edit_rows(lambda rows: rows.update({name: clean[name] for name in columns}), "delete", figures=True)

    return change


def set_rows(name: str, index, value) -> Callable[[Board], None]:
    return lambda board: board.edit_rows(lambda rows: rows[name].__setitem__(index, value), "delete")


def swap_fields(board: Board) -> None:
    def change(result):
        fields = result["extra"]["by_field"]
        fields["city"], fields["job"] = fields["job"], fields["city"]

    board.edit(change, "delete")


def disguise(board: Board) -> None:
    """Clean's result handed in as a method's, with a checkpoint and a parent that were made up."""
    board.copy("clean", "delete")
    compromised = board.read("compromised")["provenance"]["checkpoint"]["digest"]
    board.edit(
        lambda r: r["provenance"]["checkpoint"].update(
            digest=OTHER, parent=compromised, root=compromised, name="delete", splits_read=["salmu/forget"]
        ),
        "delete",
    )
    board.without_models()


def disguise_with_noise(board: Board) -> None:
    """The same with one row in ten changed a little."""
    disguise(board)
    board.edit_rows(lambda rows: rows["forget.similarity"].__isub__(0.001), "delete", figures=True)


def shifted_copy(board: Board) -> None:
    """Another method's scores, all a little lower."""
    board.copy("finetuning", "delete")
    board.set("provenance > checkpoint > digest", OTHER, "delete")
    board.set("provenance > checkpoint > name", "delete", "delete")
    for column in ("forget.similarity", "forget.negative"):
        board.edit_rows(lambda rows, column=column: rows[column].__isub__(0.01), "delete", figures=True)
    board.without_models()


def another_compromised(board: Board) -> None:
    """A method of a Compromised that is not on the board, everything else about it being right."""
    board.edit(lambda r: r["provenance"]["checkpoint"].update(parent=OTHER, root=OTHER), "delete")
    board.without_models()


def exchange_everything(board: Board) -> None:
    """Clean and Compromised exchanged with what their checkpoints are called and have read, and no method to tell."""
    exchange(board, "clean", "compromised", rename=True)
    for model in ("clean", "compromised"):
        board.edit(lambda r, model=model: r["provenance"]["checkpoint"].update(name=None, splits_read=None), model)
    for model in ("delete", "finetuning"):
        board.path(model).unlink()
    board.without_models()


def only_rows_of_another_model(board: Board) -> None:
    board.edit_rows(lambda rows: rows.update(board.rows("finetuning")), "delete")


MANIPULATIONS: dict[str, tuple[Callable[[Board], object], str | list[str]]] = {
    # Those that a tester planted, and the report believed.
    "a mean edited, its rows left": (
        lambda b: lower_mrr(b, "delete"),
        "delete.json: 'efficacy > 1.1_RetFail > MRR' is 0.001; the row scores give",
    ),
    "another mean edited": (
        lambda b: b.set("utility > 2.2_InterIdSim > mean", 0.9, "delete"),
        "'utility > 2.2_InterIdSim > mean' is 0.9; the row scores give",
    ),
    "rows edited in the released lists, the mean left": (
        lambda b: b.edit(lambda r: r["efficacy"]["1.1_RetFail"]["outcomes"].__setitem__(3, 77), "delete"),
        "'efficacy > 1.1_RetFail > outcomes' is 77 in row 3, the row score is",
    ),
    "row scores edited, the figures left": (
        lambda b: b.edit_rows(lambda rows: rows["forget.rank"].__setitem__(3, 77), "delete"),
        "outcomes' is",
    ),
    "rows deleted from the lists": (
        lambda b: b.edit(lambda r: r["efficacy"]["1.1_RetFail"].update(outcomes=[1, 2, 3]), "delete"),
        "'efficacy > 1.1_RetFail > outcomes' has 3 entries; the row scores have 126",
    ),
    "rows deleted everywhere": (keep_rows(20), "measured otherwise than 'clean': protocol.gallery"),
    "the seed edited everywhere": (
        lambda b: (b.set("protocol > seed", 43), b.set("provenance > config > seed", 43)),
        ["clean.json: ", "finetuning.json: ", "not what seed 43 draws"],
    ),
    "clean and compromised exchanged, the names left": (
        lambda b: exchange(b, "clean", "compromised", rename=False),
        ["clean.json: it is the result of 'compromised', so its name is compromised.json", "compromised.json: it is"],
    ),
    "clean and compromised exchanged, the names edited": (
        lambda b: (exchange(b, "clean", "compromised", rename=True), b.without_models()),
        ["clean.json: the checkpoint is that of 'compromised', handed in as 'clean'", "'clean' has read salmu/forget"],
    ),
    "clean and compromised exchanged with all their records": (exchange_everything, "the two are exchanged"),
    "a result copied under another name": (
        lambda b: (b.copy("finetuning", "delete"), b.without_models()),
        ["delete.json: it is of the same checkpoint as 'finetuning'", "finetuning.json: it is of the same", "row by row"],
    ),
    "clean's result handed in as a method": (
        lambda b: (b.copy("clean", "delete"), b.without_models()),
        "delete.json: the checkpoint is that of 'clean', handed in as 'delete'",
    ),
    "clean's result handed in with another lineage": (disguise, "are those of 'clean', row by row"),
    "MRR -3": (lambda b: b.set("efficacy > 1.1_RetFail > MRR", -3, "delete"), "is -3, not a share from 0 to 1"),
    "accuracy 17": (lambda b: b.set("efficacy > 1.3_ACS > acs_accuracy", 17, "delete"), "is 17, not a share"),
    "cosine 55": (lambda b: b.set("efficacy > 1.2_AssocStr > mean", 55, "delete"), "is 55, not a cosine"),
    "caveats emptied": (lambda b: b.set("caveats", [], "delete"), "'caveats' is a list of 0, not"),
    "checkpoint digest edited": (
        lambda b: b.set("provenance > checkpoint > digest", OTHER, "delete"),
        f"delete.json: it was measured on the checkpoint {OTHER[:12]}..., but ",
    ),
    "another architecture": (
        lambda b: b.set("provenance > checkpoint > architecture", OTHER, "delete"),
        f"delete.json: it was measured with the architecture {OTHER[:12]}..., but ",
    ),
    "the architecture removed": (
        lambda b: b.set("provenance > checkpoint > architecture", ..., "delete"),
        "delete.json: it was measured with the architecture (none), but ",
    ),
    "parent edited": (
        lambda b: b.set("provenance > checkpoint > parent", OTHER, "delete"),
        f"'provenance > checkpoint > parent' is {OTHER[:12]}..., ",
    ),
    "parent edited, the root left, and no model at hand": (
        lambda b: (b.set("provenance > checkpoint > parent", OTHER, "delete"), b.without_models()),
        f"its model's parent is {OTHER[:12]}..., not this board's Compromised",
    ),
    "the parent is clean": (
        lambda b: (
            b.set("provenance > checkpoint > parent", b.read("clean")["provenance"]["checkpoint"]["digest"], "delete"),
            b.without_models(),
        ),
        "not this board's Compromised",
    ),
    "the parent is another compromised": (
        another_compromised,
        f"its model descends from {OTHER[:12]}..., not from this board's Compromised",
    ),
    "protocol.rows missing": (lambda b: b.set("protocol > rows", ..., "delete"), "'protocol' has no field 'rows'"),
    "protocol.genknow missing": (lambda b: b.set("protocol > genknow", ...), "'protocol' has no field 'genknow'"),
    "caveats of a wrong type": (lambda b: b.set("caveats", {"a": 1}, "clean"), "'caveats' is an object of 1, not a list"),
    "intervals of a wrong type": (
        lambda b: b.set("extra > intervals > AssocStr", ["low", "high"], "delete"),
        "'extra > intervals > AssocStr > 0' is 'low', not a cosine",
    ),
    "by_field of a wrong type": (
        lambda b: b.set("extra > by_field > city", [1], "delete"),
        "'extra > by_field > city' is a list of 1, not an object",
    ),
    "similarity, which is no field": (
        lambda b: b.set("extra > similarity", {"forget": "x"}, "delete"),
        "'extra' has the unknown field 'similarity'",
    ),
    "provenance of a wrong type": (lambda b: b.set("provenance", "ours", "delete"), "'provenance' is 'ours', not"),
    "an override of direction in the name": (
        lambda b: b.set("model", "\u202enaelc", "delete"),
        r"'model' is '\u202enaelc', not a name",
    ),
    "an escape in the name": (lambda b: b.set("model", "\x1b[2J", "delete"), r"'model' is '\x1b[2J', not a name"),
    # Further ones of each kind.
    "a seed with a decimal point": (
        lambda b: b.set("protocol > seed", 42.0),
        "'protocol > seed' is 42.0, not a whole number from 0 to 2^63 - 1",
    ),
    "samples with a decimal point": (lambda b: b.set("protocol > bootstrap", 100.0), "'protocol > bootstrap' is 100.0, not"),
    "images with a decimal point": (
        lambda b: b.set("protocol > genknow > images", 30.0),
        "'protocol > genknow > images' is 30.0, not a whole number",
    ),
    "rows with a decimal point": (
        lambda b: b.set("protocol > rows > forget", 126.0, "delete"),
        "'protocol > rows > forget' is 126.0, not a whole number",
    ),
    "bytes with a decimal point": (
        lambda b: b.edit(lambda r: r["rows"].update(bytes=float(r["rows"]["bytes"])), "delete"),
        "'rows > bytes' is",
    ),
    "an interval edited": (
        lambda b: b.set("extra > intervals > RetFail_MRR", [0.0, 0.01], "delete"),
        "'extra > intervals > RetFail_MRR' is [0, 0.01]; the row scores give",
    ),
    "intervals removed": (lambda b: b.set("extra > intervals", {}, "delete"), "'extra > intervals > AssocStr' is missing"),
    "two attributes exchanged": (swap_fields, "'extra > by_field > city > "),
    "a figure of metrics edited": (
        lambda b: b.set("metrics > InterIdRet_MRR > value", 0.9, "delete"),
        "'metrics > InterIdRet_MRR > value' is 0.9; the row scores give",
    ),
    "an interval of metrics edited": (
        lambda b: b.set("metrics > ACS > interval", [0.4, 0.6], "delete"),
        "'metrics > ACS > interval' is [0.4, 0.6]; the row scores give",
    ),
    "a target edited": (lambda b: b.set("metrics > GenKnow > target", None, "delete"), "'metrics > GenKnow > target' is null"),
    "a figure removed": (lambda b: b.set("metrics > FragSim", ..., "delete"), "'metrics > FragSim' is missing; the row"),
    "a metric not measured": (
        lambda b: [b.set(f"{where} > IntraIdRet_MRR", ..., "delete") for where in ("metrics", "protocol > metrics")],
        "'protocol > metrics' lacks IntraIdRet_MRR, which every result has",
    ),
    "a metric that nobody measured": (
        lambda b: b.edit(lambda r: r["metrics"].update(Precision=r["metrics"]["ACS"]), "delete"),
        "'metrics' and 'protocol > metrics' do not name the same metrics: Precision",
    ),
    "called an old result": (
        lambda b: b.set("schema", "salmu_jax.result/2", "delete"),
        "the result has the unknown field 'metrics'",
    ),
    "holdout retrieval edited": (
        lambda b: b.set("extra > retrieval > holdout_identity > MRR", 0.9, "delete"),
        "'extra > retrieval > holdout_identity > MRR' is 0.9; the row scores give",
    ),
    "the fewest bootstrap samples": (
        lambda b: (b.set("protocol > bootstrap", 1), b.edit_rows(lambda rows: None, figures=True)),
        "'protocol > bootstrap' is 1, in 'provenance > config' it is 100",
    ),
    "the row scores of another model": (only_rows_of_another_model, "outcomes' is"),
    "all rows turned around, all means as before": (reorder, "are not those of 'clean'"),
    "a caveat replaced": (
        lambda b: b.edit(lambda r: r["caveats"].__setitem__(0, "Measured on the released data."), "delete"),
        "not of ours: 'Measured on the released data.'",
    ),
    "a made world called the released one": (
        lambda b: (b.set("protocol > made", False), b.edit(lambda r: r["caveats"].pop(0))),
        "'caveats' are not those of its protocol (missing: 'Measured on other data than the released ones",
    ),
    "the data edited": (
        lambda b: b.set("provenance > data > salmu", OTHER, "delete"),
        ["it was measured on other data", "measured otherwise than 'clean': provenance.data.salmu"],
    ),
    "the version of a metric edited": (
        lambda b: b.set("protocol > metrics > AssocStr", 2, "delete"),
        "'protocol > metrics > AssocStr' is version 2, this version of salmu_jax computes 1",
    ),
    "the prompt edited": (
        lambda b: b.set("protocol > idzsc_prompt", "{name}", "delete"),
        "protocol.idzsc_prompt {name} instead of a photo of {name}",
    ),
    "the gallery edited": (lambda b: b.set("protocol > gallery", 2001), "'protocol > gallery' is 2001; the row scores give"),
    "the chance edited": (lambda b: b.set("protocol > genknow > chance", 0.5), "'protocol > genknow > chance' is 0.5"),
    "ranks below the gallery's end": (set_rows("forget.rank", 5, 900), "row scores 'forget.rank' row 5 is 900, not a rank"),
    "moved towards another compromised": (
        lambda b: b.set("provenance > compromised", OTHER, "delete"),
        "its weights were moved towards eeeeeeeeeeee..., not towards this board's Compromised",
    ),
    "a rank of 0": (set_rows("forget.rank", slice(None), 0), "row scores 'forget.rank' row 0 is 0, not a rank"),
    "cosines of 2 in the rows": (
        set_rows("holdout_identity.similarity", slice(2, 4), 2),
        "row scores 'holdout_identity.similarity' row 2 is 2.0, not a cosine from -1 to 1 (and 1 more rows)",
    ),
    "NaN in the rows": (set_rows("retain_synth.similarity", 0, np.nan), "row 0 is nan, not a cosine"),
    "a prediction of no class": (set_rows("genknow.prediction", 0, 5), "'genknow.prediction' row 0 is 5, not one of 5"),
    "all labels what was predicted": (
        lambda b: b.edit_rows(lambda r: r.update({"genknow.label": r["genknow.prediction"]}), "delete", figures=True),
        "row scores genknow.label are not those of 'clean'",
    ),
    "all names what was predicted": (
        lambda b: b.edit_rows(lambda r: r.update({"idzsc.label": 0 * r["idzsc.label"]}), "delete", figures=True),
        "row scores 'idzsc.label' row ",
    ),
    "shuffled pairs that are not the seed's": (
        lambda b: b.edit_rows(lambda r: r["forget.negative_row"].sort(), figures=True),
        "forget.negative_row: not what seed 42 draws",
    ),
    "clean's forget scores and one's own holdouts": (
        from_clean("forget.similarity"),
        "forget.similarity are those of 'clean'",
    ),
    "clean's scores, one in a thousand lower": (disguise_with_noise, "are those of 'clean', row by row"),
    "another method's scores, a little lower": (shifted_copy, "are those of 'finetuning', row by row"),
    "the published clean handed in as a method": (
        lambda b: b.set("provenance > checkpoint > source", {"published": "cvc-mmu/clip-vit-b-16-salmu-clean"}, "delete"),
        "the checkpoint is the published cvc-mmu/clip-vit-b-16-salmu-clean, handed in as 'delete'",
    ),
    "no parent": (
        lambda b: b.edit(lambda r: r["provenance"]["checkpoint"].update(parent=None, root=None), "delete"),
        "the checkpoint names no parent",
    ),
    "clean descends from another": (
        lambda b: (b.set("provenance > checkpoint > parent", OTHER, "clean"), b.without_models()),
        "'clean' is trained from scratch, but its checkpoint has a parent",
    ),
    "a method that read a holdout": (
        lambda b: b.set("provenance > checkpoint > splits_read", ["salmu/forget", "salmu/holdout_identity"], "delete"),
        "the method read salmu/holdout_identity",
    ),
    "a name that reads as clean": (
        lambda b: (b.copy("delete", "Clean"), b.path("delete").unlink()),
        "'Clean' and 'clean' read alike",
    ),
    **{
        f"the checkpoint's {key} removed": (
            lambda b, key=key: b.set(f"provenance > checkpoint > {key}", ..., "delete"),
            f"delete.json: 'provenance > checkpoint > {key}' is (none), ",
        )
        for key in ("root", "name", "splits_read")
    },
    "another method, by its run": (
        lambda b: b.set("provenance > checkpoint > run > method", "cliperase", "delete"),
        "delete.json: 'provenance > checkpoint > run > method' is cliperase, ",
    ),
    "another option of the run": (
        lambda b: b.set("provenance > checkpoint > run > options > weight", 2.0, "delete"),
        "delete.json: 'provenance > checkpoint > run > options > weight' is 2.0, ",
    ),
    "the run removed": (
        lambda b: b.set("provenance > checkpoint > run", ..., "delete"),
        "delete.json: 'provenance > checkpoint > run' is (none), ",
    ),
    "another world, by the config": (
        lambda b: b.set("provenance > config > world > personas", 8, "delete"),
        "delete.json: 'provenance > config > world > personas' is 8, but the config of ",
    ),
    "the manifest edited, its seal left": (
        lambda b: edit_manifest(b, "delete"),
        "its manifest is not as it was written",
    ),
    "the data removed": (
        lambda b: b.set("provenance > data", ..., "delete"),
        ["'provenance' does not say which data were evaluated", "it was measured on other data (none said) than"],
    ),
    "the data of all removed, and none at hand": (
        lambda b: (b.set("provenance > data", {}), b.without_models()),
        ["clean.json: 'provenance' does not say which data were evaluated", "finetuning.json: 'provenance' does not"],
    ),
    "the zero-shot data removed": (
        lambda b: (b.set("provenance > data > zeroshot", ...), b.without_models()),
        "'provenance > data' has no digest of 'zeroshot', but 'protocol > genknow > dataset' is 'shapes'",
    ),
    "a made world called the released one, and its caveats": (
        lambda b: b.edit(lambda r: (r["protocol"].update(made=False), r.update(caveats=caveats(r["protocol"], r["metrics"])))),
        "delete.json: 'protocol > made' is False, but in the config of ",
    ),
    "a made world, by the config": (
        lambda b: (
            b.edit(lambda r: r["provenance"]["config"].update(world_dir="")),
            b.edit(lambda r: (r["protocol"].update(made=None), r.update(caveats=caveats(r["protocol"], r["metrics"])))),
            b.without_models(),
        ),
        "'protocol > made' is null, but in 'provenance > config' 'world_dir' is ''",
    ),
    "a small task called ImageNet, the caveat removed": (
        lambda b: b.edit(
            lambda r: (
                r["protocol"]["genknow"].update(dataset="imagenet1k"),
                r.update(caveats=[line for line in r["caveats"] if "GenKnow" not in line]),
            )
        ),
        "(missing: 'GenKnow is the accuracy on 'imagenet1k' (5 classes), not ",
    ),
    "no clean among them": (lambda b: b.path("clean").unlink(), "none of 'clean' can be read"),
    "the checkpoint not said": (
        lambda b: b.set("provenance > checkpoint", ..., "delete"),
        "does not say which checkpoint was evaluated",
    ),
}  # fmt: skip


def test_the_same_parameters_are_the_same_checkpoint_only_under_the_same_architecture(board):
    digest = board.read("delete")["provenance"]["checkpoint"]["digest"]
    board.set("provenance > checkpoint > digest", digest, "finetuning")
    board.without_models()
    assert "finetuning.json: it is of the same checkpoint as 'delete'" in complaints(board)
    board.set("provenance > checkpoint > architecture", OTHER, "finetuning")
    assert complaints(board) == ""
    board.set("provenance > checkpoint > architecture", ..., "finetuning")  # it does not say that it is another
    assert "finetuning.json: it is of the same checkpoint as 'delete'" in complaints(board)


def test_a_work_directory_that_is_none_is_refused(board, tmp_path, capsys):
    result, empty = str(board.path("delete")), tmp_path / "empty"
    empty.mkdir()
    assert cli.main(["verify", result, "--workdir", str(board.root)]) == 0
    capsys.readouterr()
    for workdir, complaint in (
        (tmp_path / "mistyped", "no such directory"),
        (empty, "holds neither models nor datasets to compare with"),
    ):
        assert cli.main(["verify", result, "--workdir", str(workdir)]) == 2
        captured = capsys.readouterr()
        assert captured.err == f"salmu: --workdir {workdir}: {complaint}\n"
        assert captured.out == ""


def test_results_of_several_people_each_with_the_references(board, tmp_path):
    """Everybody hands in both references, and may give a method a name that another has; a copy is found all the same."""
    other = Board(shutil.copytree(board.root, tmp_path / "other"))
    board.without_models()
    other.without_models()
    board.path("finetuning").unlink()
    for name in ("delete", "finetuning"):  # another run of theirs, under a name that is taken
        (other.root / "results" / f"{name}.json").rename(other.root / "results" / f"{name}.old")
    other.write("delete", {**json.loads((other.root / "results" / "finetuning.old").read_text()), "model": "delete"})
    other.set("rows > file", "delete.rows.npz", "delete")
    other.set("provenance > checkpoint > name", "delete", "delete")
    shutil.copy(other.root / "results" / "finetuning.rows.npz", other.root / "results" / "delete.rows.npz")
    other.edit_rows(lambda rows: None, "delete")
    paths = [*board.paths(), *other.paths()]
    assert [one.problems for one in verify_results(paths)] == [[]] * 6
    other.copy("clean", "delete")
    assert "is of the same checkpoint as 'clean'" in "".join(verify_results(paths)[-1].problems)
    other.set("provenance > checkpoint > digest", OTHER, "compromised")
    assert "it is of another 'compromised' than" in "".join(verify_results(paths)[4].problems)


def test_retrained_is_a_reference_and_no_method(board, tmp_path):
    """A model trained on everything but forget: from scratch, with the holdouts among what it has read."""
    board.copy("delete", "retrained")
    board.path("delete").unlink()
    read = ["retain_pairs/train", "salmu/retain_synth", "salmu/holdout_identity", "salmu/holdout_association"]
    board.edit(
        lambda r: r["provenance"]["checkpoint"].update(name="retrained", parent=None, root=None, splits_read=read),
        "retrained",
    )
    board.without_models()
    assert complaints(board) == ""
    other = Board(shutil.copytree(board.root, tmp_path / "other"))
    paths = [*board.paths(), other.path("retrained")]
    assert [one.problems for one in verify_results(paths)] == [[]] * 5
    other.set("provenance > checkpoint > digest", OTHER, "retrained")
    assert "it is of another 'retrained' than" in "".join(verify_results(paths)[-1].problems)
    board.set("provenance > checkpoint > splits_read", [*read, "salmu/forget"], "retrained")
    assert "'retrained' has read salmu/forget" in complaints(board)
    board.set("provenance > checkpoint > splits_read", read[:3], "retrained")
    assert "'retrained' has read none of salmu/holdout_association" in complaints(board)
    board.set("provenance > checkpoint > splits_read", read, "retrained")
    board.copy("retrained", "finetuning")
    found = complaints(board)
    assert "the checkpoint is that of 'retrained', handed in as 'finetuning'" in found
    assert "it is of the same checkpoint as 'retrained'" in found


def test_the_control_that_changes_nothing_is_a_copy_by_declaration(board):
    digest = board.read("compromised")["provenance"]["checkpoint"]["digest"]
    board.copy("compromised", "delete")
    read = ["salmu/forget", "salmu/retain_synth"]
    board.edit(
        lambda r: r["provenance"]["checkpoint"].update(name="delete", parent=digest, root=digest, splits_read=read),
        "delete",
    )
    board.without_models()
    assert "delete.json: it is of the same checkpoint as 'compromised'" in complaints(board)
    assert "delete.json: the checkpoint is its own parent" in complaints(board)
    board.edit(lambda r: r["provenance"]["checkpoint"].update(run={"method": "no_op"}), "delete")
    assert complaints(board) == ""
    board.edit(lambda r: r["provenance"]["checkpoint"].update(parent=OTHER), "delete")  # then it is a copy by no right
    assert "which changes nothing, but the checkpoint is not its parent" in complaints(board)
    assert "delete.json: it is of the same checkpoint as 'compromised'" in complaints(board)


def test_every_pair_that_is_alike_is_looked_at_and_few_others(board):
    """What one matmul finds among all pairs is what a comparison of each with each would find."""
    results = [(board.read(model), board.rows(model)) for model in MODELS]
    assert suspects(results) == set()
    shifted = {
        **results[3][1],
        "forget.similarity": results[3][1]["forget.similarity"] * np.float32(-0.5) + np.float32(0.1),
    }
    noisy = {**results[3][1]}
    noisy["forget.similarity"] = noisy["forget.similarity"] + np.random.default_rng(0).normal(0, 1e-3, 126).astype("f4")
    unlike = [
        ({"provenance": {"checkpoint": {"digest": f"{i}" * 64}}}, rows) for i, rows in enumerate((shifted, noisy))
    ]
    assert suspects([*results, *unlike]) == {(3, 4)}
    assert suspects([*results, (results[2][0], noisy)]) == {(2, 4)}


def test_an_honest_run_verifies(board):
    found = verify_results(board.paths())
    assert [one.problems for one in found] == [[]] * len(MODELS)
    assert [line for one in found for line in one.lines()] == [
        f"{board.path(model)}: verified: schema; digest; all figures from 283 rows; checkpoint; data; beside 3 others"
        for model in MODELS
    ]
    for model in MODELS:
        assert not verify_results([board.path(model)])[0].problems
    board.without_models()
    assert complaints(board) == ""


@pytest.mark.parametrize("kind", MANIPULATIONS)
def test_what_was_done_to_a_result_is_found(board, kind):
    manipulate, expected = MANIPULATIONS[kind]
    manipulate(board)
    found = complaints(board)
    for message in [expected] if isinstance(expected, str) else expected:
        assert message in found
    assert all(line.isprintable() for line in found.splitlines())


@pytest.mark.parametrize("field", ["zeroshot_images", "workers"])
def test_a_world_may_differ_in_what_the_models_do_not_depend_on(board, field):
    board.set(f"provenance > config > world > {field}", 7, "delete")
    assert not complaints(board)


@pytest.mark.parametrize("kind", ["a mean edited, its rows left", "caveats emptied", "another mean edited"])
def test_an_edit_by_hand_breaks_the_digest(board, kind):
    board.careful = False
    MANIPULATIONS[kind][0](board)
    assert "delete.json: its 'digest' is not that of its contents" in complaints(board)


@pytest.mark.parametrize("field", ["created", "seconds", "command", "device"])
def test_what_nothing_can_be_compared_with_is_covered_by_the_digest(board, field):
    board.careful = False
    board.set(f"provenance > {field}", 1.5 if field == "seconds" else "x", "delete")
    assert complaints(board).endswith("the file was changed after it was written")


def test_everything_that_is_wrong_is_said_up_to_ten(board):
    lower_mrr(board, "delete")
    board.set("caveats", ["none"], "delete")
    board.set("extra > retain_synth_mean", 0.5, "delete")
    one = next(one for one in verify_results(board.paths()) if one.problems)
    assert len(one.problems) == 3
    board.edit(lambda r: [v.update(mean=9) for v in r["utility"].values()], "delete")
    board.edit(lambda r: [v.update(AssocStr=9) for v in r["extra"]["by_field"].values()], "delete")
    one = next(one for one in verify_results(board.paths()) if one.problems)
    assert len(one.lines()) == SHOWN + 1
    assert one.lines()[-1].endswith(f"... and {len(one.problems) - SHOWN} more")


def test_damaged_and_missing_side_files(board):
    side = board.root / "results" / "delete.rows.npz"
    side.write_bytes(side.read_bytes()[:-30])
    assert "delete.json: delete.rows.npz: is damaged" in complaints(board)
    side.unlink()
    assert "delete.json: delete.rows.npz: cannot be read" in complaints(board)


def test_a_flipped_bit_anywhere_is_found(board):
    """A few of the hundred of ``tests/acceptance``: of the result and of its row scores, none changes a figure unnoticed."""
    rng = np.random.default_rng(3)
    for path in (board.path("delete"), board.root / "results" / "delete.rows.npz"):
        whole = path.read_bytes()
        for bit in rng.integers(0, 8 * len(whole), 15):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            assert verify_results([board.path("delete")])[0].problems, (path.name, bit)
        path.write_bytes(whole)
    assert not verify_results([board.path("delete")])[0].problems


def test_damaged_models_and_data_at_hand(board):
    records = board.root / "datasets" / "salmu" / "1.0.0" / "records"
    records.write_bytes(b"z" + records.read_bytes()[1:])
    assert "is not as it was written" in complaints(board)
    (board.root / "models" / "delete" / "manifest.json").write_text("{")
    assert "its manifest cannot be read" in complaints(board)


def test_the_data_are_read_once_for_all_results(board, monkeypatch):
    """They take gigabytes, and a leaderboard has a dozen results."""
    read, digest = [], contents.files.sha256_file
    monkeypatch.setattr(contents, "_SETTLED", -1.0)  # seconds: the files have been written just now
    monkeypatch.setattr(contents.files, "sha256_file", lambda path: read.append(Path(path)) or digest(path))
    assert not complaints(board)
    data = [path for path in read if path.is_relative_to(board.root / "datasets")]
    assert data
    assert len(data) == len(set(data))


def test_a_model_from_elsewhere_whose_parent_nobody_recorded_is_let_pass_and_named(board):
    board.edit(lambda r: r["provenance"]["checkpoint"].update(parent=None, root=None, splits_read=None), "delete")
    board.without_models()
    one = verify_results(board.paths())[2]
    assert not one.problems
    assert "what its model descends from is not recorded" in one.lines()[0]


def test_a_method_on_top_of_another_that_is_on_the_board_is_let_pass(board):
    other = board.read("finetuning")["provenance"]["checkpoint"]["digest"]
    board.set("provenance > checkpoint > parent", other, "delete")
    board.without_models()
    assert complaints(board) == ""


def test_one_result_alone_is_compared_with_the_references_beside_it(board):
    reorder(board)
    assert "are not those of 'clean'" in verify_results([board.path("delete")])[0].problems[-1]
    for model in ("clean", "compromised"):
        board.path(model).unlink()
    one = verify_results([board.path("finetuning")])[0]
    assert not one.problems
    assert "; not compared with Clean's and Compromised's results, which are not beside it" in one.lines()[0]


def test_what_a_result_lacks_and_both_references_have_is_named(board, monkeypatch):
    def of(*keys):
        return {"protocol": {"metrics": {**SCHEMA_2, **dict.fromkeys(keys, 1)}}}

    both = [of("IndirectLeak", "MIA_CSA_AUC"), of("MIA_CSA_AUC", "IndirectLeak")]
    assert lacking(of(), both) == ["IndirectLeak", "MIA_CSA_AUC"]
    assert lacking(of("IndirectLeak", "Relearn"), both) == ["MIA_CSA_AUC"]
    assert not lacking(of(), [both[0], of()])

    monkeypatch.setattr("salmu_jax.evaluation.board.lacking", lambda one, _: ["Relearn"] * (one["model"] == "delete"))
    found = {one.result["model"]: one.lines()[0] for one in verify_results(board.paths())}
    assert "; it lacks Relearn, which Clean's and Compromised's results have; " in found["delete"]
    assert "it lacks" not in found["finetuning"]


def test_weights_from_elsewhere_are_compared_by_their_sha256(board):
    weights = board.root / "mine.pt"
    weights.write_bytes(b"weights")
    source = {"file": "mine.pt", "sha256": hashlib.sha256(b"weights").hexdigest()}
    board.set("provenance > checkpoint > source", source, "delete")
    board.without_models()
    for given in (weights, board.root):
        assert not verify_results([board.path("delete")], checkpoint=given)[0].problems
    weights.write_bytes(b"others")
    (problem,) = verify_results([board.path("delete")], checkpoint=weights)[0].problems
    assert problem.startswith("it was measured on weights with the SHA-256")
    (problem,) = verify_results([board.path("delete")], checkpoint=board.root / "none")[0].problems
    assert problem.startswith("no model in")


def test_the_command(board, capsys):
    assert cli.main(["verify", str(board.root / "results")]) == 0
    out = capsys.readouterr().out
    assert out.count(": verified: ") == len(MODELS)
    lower_mrr(board, "delete")
    assert cli.main(["verify", *map(str, board.paths())]) == 2
    captured = capsys.readouterr()
    assert "delete.json: 'efficacy > 1.1_RetFail > MRR' is 0.001" in captured.out
    assert captured.err == "salmu: 1 of 4 results do not verify\n"
    assert cli.main(["verify", str(board.root / "none.json")]) == 2
    assert "none.json: cannot be read" in capsys.readouterr().out
    elsewhere = shutil.copytree(board.root / "models" / "finetuning", board.root / "elsewhere")
    assert cli.main(["verify", str(board.path("delete")), "--checkpoint", str(elsewhere)]) == 2
    assert "it was measured on the checkpoint" in capsys.readouterr().out


def leaves(value, path=()):
    """The paths of everything in a JSON value; of a list its first two entries."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, child in items:
        yield from leaves(child, (*path, key))


# Fields that hold any text or settings, and are covered by the digest alone.
FREE = (
    "digest",
    *(
        f"provenance > {key}"
        for key in ("checkpoint > name", "checkpoint > splits_read", "created", "versions", "config")
    ),
    *(f"provenance > {key}" for key in ("command", "device")),
)
STRANGE = (None, True, -1, 1.5, 10**30, 1e300, "x", "\u202e", "a" * 100_000, [], {}, [[]], {"a": {}})


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_put_in_any_field_is_a_line(board, seed):
    board.without_models()
    rng = np.random.default_rng(seed)
    result = board.read("delete")
    fields = [path for path in leaves(result) if not " > ".join(map(str, path)).startswith(FREE)]
    *parents, last = fields[rng.integers(len(fields))]
    place = result
    for key in parents:
        place = place[key]
    choices = [value for value in STRANGE if value != place[last]]
    place[last] = choices[rng.integers(len(choices))]
    board.write("delete", result)
    lines = complaints(board).splitlines()
    assert lines, (parents, last, place[last])
    assert all(line.isprintable() and len(line) < 1_500 for line in lines)
