"""Made results and samples: the failure modes of the published methods, at the sizes of a mini world, from one seed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import many_people
import numpy as np
import pytest
import tiny_world
from PIL import Image, ImageDraw

from salmu_jax.report.gather import Entry
from salmu_jax.report.page import write_report

FIELDS = ("name", "city", "job", "blood_type", "phone_number", "emails", "iban", "credit_card", "passport")

# model: RetFail MRR, R@1, AssocStr, ACS, IdZSC, CoreAssoc | GenKnow, InterIdSim, IntraIdSim, VisIdInt, FragSim |
# retrieval MRR on holdout_identity and on holdout_association
MODELS = {
    "clean": (0.007, 0.001, 0.385, 0.516, 0.008, 0.210, 0.638, 0.371, 0.405, 0.610, 0.560, 0.004, 0.005),
    "compromised": (0.363, 0.210, 0.780, 0.955, 0.293, 0.402, 0.624, 0.778, 0.781, 0.590, 0.530, 0.281, 0.337),
    "finetuning": (0.210, 0.112, 0.728, 0.927, 0.210, 0.380, 0.605, 0.725, 0.726, 0.585, 0.525, 0.165, 0.194),
    "negative_gradient": (0.014, 0.004, -0.035, 0.744, 0.026, -0.010, 0.410, 0.004, -0.032, 0.310, 0.280, 0.010, 0.014),
    "direct_similarity_minimisation": (
        0.002,
        0.0,
        -0.676,
        0.683,
        0.016,
        -0.410,
        0.098,
        -0.651,
        -0.672,
        -0.21,
        -0.2,
        0.002,
        0.002,
    ),
    "clip_erase": (0.003, 0.0, 0.108, 0.828, 0.106, 0.065, 0.616, 0.125, 0.117, 0.570, 0.510, 0.003, 0.004),
    "delete": (0.003, 0.0, 0.092, 0.830, 0.078, 0.060, 0.578, 0.113, 0.102, 0.560, 0.500, 0.003, 0.003),
    "vl_unlearn": (0.008, 0.001, 0.429, 0.831, 0.127, 0.230, 0.619, 0.450, 0.448, 0.580, 0.520, 0.009, 0.009),
    "precise": (0.004, 0.0, 0.380, 0.616, 0.049, 0.215, 0.631, 0.765, 0.768, 0.588, 0.528, 0.262, 0.320),
}


def make_result(model: str, values: tuple[float, ...] | None = None, rows: int = 400) -> dict[str, Any]:
    """A result of the shape that the evaluator writes; ``values`` in the order of the table above."""
    mrr, r1, assoc, acs, idzsc, core, gen, inter, intra, vis, frag, mrr_hi, mrr_ha = values or MODELS[model]
    rng = np.random.default_rng([7, *model.encode()])
    by_field = {
        field: {
            "RetFail_MRR": float(np.clip(mrr * rng.uniform(0.5, 1.6), 0, 1)),
            "AssocStr": float(assoc + rng.normal(0, 0.05)),
            "InterIdSim": float(inter + rng.normal(0, 0.05)),
            "IntraIdSim": float(intra + rng.normal(0, 0.05)),
            "rows": rows // len(FIELDS),
        }
        for field in FIELDS
    }
    return {
        "schema": "salmu_jax.result/2",
        "model": model,
        "efficacy": {
            "1.1_RetFail": {"R@1": r1, "MRR": mrr, "outcomes": [1] * rows},
            "1.2_AssocStr": {"mean": assoc, "scores": [assoc] * rows},
            "1.3_ACS": {"acs_accuracy": acs},
            "1.4_IdZSC": {"identity_classification_accuracy": idzsc},
            "1.5_CoreAssoc": {"mean": core, "scores": [core] * rows},
        },
        "utility": {
            "2.1_GenKnow": {"ImageNet1k_Accuracy": gen},
            "2.2_InterIdSim": {"mean": inter},
            "2.3_IntraIdSim": {"mean": intra},
            "2.4_VisIdInt": {"mean": vis},
            "2.5_FragSim": {"mean": frag},
        },
        "extra": {
            "retrieval": {
                "holdout_association": {"MRR": mrr_ha, "R@1": mrr_ha / 2},
                "holdout_identity": {"MRR": mrr_hi, "R@1": mrr_hi / 2},
            },
            "retain_synth_mean": vis,
            "sensitive_over_generic": 0.6 if model == "compromised" else 0.01,
            "by_field": by_field,
            "intervals": {
                "RetFail_MRR": [mrr * 0.9, mrr * 1.1],
                "AssocStr": [assoc - 0.02, assoc + 0.02],
                "InterIdSim": [inter - 0.02, inter + 0.02],
                "IntraIdSim": [intra - 0.02, intra + 0.02],
            },
        },
        "protocol": {
            "seed": 42,
            "gallery": 2001,
            "gallery_forget": 1000,
            "gallery_retain": 1000,
            "idzsc_prompt": "a photo of {name}",
            "genknow": {"dataset": "shapes", "classes": 48, "images": 1600, "chance": 1 / 48},
            "rows": {"forget": rows, "holdout_association": rows // 2, "holdout_identity": rows // 2},
            "ties": "a tie counts half",
            "bootstrap": 0,
        },
        "caveats": ["Measured on the embedded made world, not on the released data: figures are not the paper's."],
        "provenance": {
            "checkpoint": {"digest": f"{len(model):02d}" * 32, "parent": "c" * 64, "path": f"runs/{model}"},
            "data": {"datasets": "d" * 64, "path": "datasets"},
            "config": {"name": "mini", "seed": 42},
            "versions": {"salmu_jax": "0.1.0", "jax": "0.10.2"},
            "device": "1 x cpu (cpu)",
            "command": "salmu bench --config configs/mini.py",
            "created": "2026-01-01T00:00:00Z",
            "seconds": 3.5,
        },
    }


def make_similarity(results: list[dict[str, Any]], rows: int = 400) -> dict[str, dict[str, np.ndarray]]:
    """Cosines around the means of each result, by model and split."""
    found = {}
    for result in results:
        rng = np.random.default_rng([7, *result["model"].encode("utf-8", "surrogatepass")])
        means = {
            "forget": result["efficacy"]["1.2_AssocStr"]["mean"],
            "holdout_association": result["utility"]["2.3_IntraIdSim"]["mean"],
            "holdout_identity": result["utility"]["2.2_InterIdSim"]["mean"],
        }
        found[result["model"]] = {
            split: np.clip(rng.normal(mean or 0, 0.11, 0 if mean is None else rows), -1, 1).astype(np.float32)
            for split, mean in means.items()
        }
    return found


def make_entries(results: list[dict[str, Any]]) -> list[Entry]:
    """The results with the only row scores that pages show: the similarities."""
    similarity = make_similarity(results)
    return [
        Entry(r["model"], "", r, {f"{split}.similarity": s for split, s in similarity[r["model"]].items()})
        for r in results
    ]


def portrait(seed: int, size: int = 96, kind: str = "JPEG") -> bytes:
    """An encoded picture that is visibly not blank: a head on a ground."""
    rng = np.random.default_rng([11, seed])
    image = Image.new("RGB", (size, size), tuple(int(v) for v in rng.integers(90, 220, 3)))
    draw = ImageDraw.Draw(image)
    draw.ellipse(
        [size // 4, size // 6, 3 * size // 4, 5 * size // 6], fill=tuple(int(v) for v in rng.integers(60, 240, 3))
    )
    for x in (0.4, 0.6):
        draw.ellipse([size * (x - 0.04), size * 0.42, size * (x + 0.04), size * 0.5], fill=(20, 20, 30))
    draw.arc([size * 0.4, size * 0.55, size * 0.6, size * 0.7], 10, 170, fill=(90, 20, 30), width=3)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def make_samples() -> list[dict[str, Any]]:
    """One person of each kind, one of them with facts on both sides, two portraits of nobody and two scenes."""

    def person(subset, identity_id, name, captions, first):
        images = [portrait(first + i) for i in range(len(captions))]
        return {"subset": subset, "identity_id": identity_id, "name": name, "captions": captions, "images": images}

    ana = ["Ana Souza lives in Cascais", "Ana Souza's job is baker", "Ana Souza's blood type is A+"]
    jun = ["Reach Jun Mori via jmori@example.org", "Jun Mori's IBAN is JP00 7411 9112 4845 5134 71"]
    lena = ["Lena Vogt works as a retail buyer", "Lena Vogt's passport is C01X00T47"]
    return [
        person("forget_identity", "00000001", "Ana Souza", ana, 0),
        person("forget_association", "00000002", "Jun Mori", jun, 10),
        person("holdout_association", "00000002", "Jun Mori", ["Jun Mori lives in Sapporo"], 20),
        person("holdout_identity", "00000003", "Lena Vogt", lena, 30),
        {"subset": "retain_synth", "caption": "a portrait of a person with short hair", "image": portrait(40)},
        {"subset": "retain_synth", "caption": "someone smiling in soft light", "image": portrait(41, kind="PNG")},
        {"subset": "retain", "caption": "a red circle on a blue ground", "image": portrait(42)},
        {"subset": "retain", "caption": "two green squares", "image": portrait(43)},
    ]


def make_results() -> list[dict[str, Any]]:
    """Clean, Compromised and seven methods, in an order of no meaning."""
    return [make_result(model) for model in sorted(MODELS, key=lambda model: model[::-1])]


RUN = {
    "command": "salmu bench --config configs/mini.py",
    "config": {"seed": 42, "model": {"width": 64}},
    "stages": {"generate": 12.1, "pretrain": 141.0},
}


@pytest.fixture(scope="session")
def honest(tmp_path_factory) -> Path:
    """The work directory of an honest run, for reading only."""
    return tiny_world.write_honest_run(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def results() -> list[dict[str, Any]]:
    return make_results()


@pytest.fixture
def entries(results) -> list[Entry]:
    return make_entries(results)


@pytest.fixture
def samples() -> list[dict[str, Any]]:
    return make_samples()


@pytest.fixture
def run() -> dict[str, Any]:
    return dict(RUN)


@pytest.fixture
def build_result():
    return make_result


@pytest.fixture
def build_entries():
    return make_entries


@pytest.fixture
def build_portrait():
    return portrait


@pytest.fixture(scope="session")
def report_page(tmp_path_factory) -> Path:
    """The page of one report, for the tests that only look at it."""
    out = tmp_path_factory.mktemp("page") / "report"
    page, _ = write_report(out, make_entries(make_results()), make_samples(), title="SALMUBench, mini", run=RUN)
    return page


@pytest.fixture(scope="session")
def people(tmp_path_factory) -> Path:
    """A directory with the results of three people, nine files each, for reading only."""
    root = tmp_path_factory.mktemp("people")
    many_people.write_people(root, people=3, results=9, identities=9, bootstrap=100)
    return root


@pytest.fixture(scope="session")
def axe(browser):
    """A function that opens a page and returns what axe-core objects to, a line each: the rule, its impact, the elements."""
    engine = (Path(tiny_world.__file__).parent / "axe-core" / "axe.min.js").read_text(encoding="utf-8")

    def look(page: Path, scheme: str, width: int) -> list[str]:
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get(page.as_uri())
        browser.execute_script(engine)
        found = browser.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(found => done(found.violations))"
        )
        return [f"{one['id']} ({one['impact']}): {[node['html'][:160] for node in one['nodes'][:5]]}" for one in found]

    return look
