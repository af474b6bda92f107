"""The probes of membership on a made world's captions, and on models whose knowledge is planted."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tiny_world
from made_people import made_people
from planted import Behaviour, plant

from salmu_jax.evaluation import matched as matching
from salmu_jax.evaluation.aggregate import aggregate
from salmu_jax.evaluation.caveats import not_measured
from salmu_jax.evaluation.checks import figure_problems
from salmu_jax.evaluation.data import EvaluationData
from salmu_jax.evaluation.matched import match
from salmu_jax.evaluation.metric import Settings
from salmu_jax.evaluation.probes import membership
from salmu_jax.evaluation.protocol import IDZSC_PROMPT, describe_protocol, make_result, score_rows
from salmu_jax.evaluation.registry import METRICS, PROBES
from salmu_jax.evaluation.subsets import with_subsets
from salmu_jax.runtime.errors import InputError

SETTINGS = Settings(42, IDZSC_PROMPT)
PROBED = with_subsets((*METRICS, *PROBES["membership"], *PROBES["which_forgotten"]))
NOTHING = {"forget": 0.0, "holdout_association": 0.0, "holdout_identity": 0.0}
MODELS = {
    "clean": Behaviour(**NOTHING, noise=2),
    "compromised": Behaviour(),
    "surgeon": Behaviour(forget=0.0),
    "overdone": Behaviour(forget=-0.3),
    "half_done": Behaviour(forget=lambda rng, rows: np.where(rows.subset == "forget_identity", 0.7, 0.0)),
}


def figures_of(data, rows, metrics=PROBED):
    return aggregate(rows, describe_protocol(data, rows, SETTINGS, metrics, bootstrap=400), metrics)["metrics"]


@pytest.fixture(scope="module")
def data():
    return made_people()


@pytest.fixture(scope="module")
def scored(data):
    bank = data.text_bank(PROBED, SETTINGS)
    return {
        model: score_rows(data, plant(data, bank, behaviour), SETTINGS, PROBED) for model, behaviour in MODELS.items()
    }


@pytest.fixture(scope="module")
def figures(data, scored):
    return {model: figures_of(data, rows) for model, rows in scored.items()}


# The matched non-members ---------------------------------------------------------------------------------------------------


def test_a_matched_caption_says_something_else_of_nobody(data):
    matched, forget = match(data, "forget", 42), data.splits["forget"]
    assert matched.used.mean() > 0.98
    names = {name for rows in data.splits.values() for name in rows.name}
    values = set(zip(forget.data_field, forget.value, strict=True))
    surnames = {name.split(maxsplit=1)[1] for name in forget.name}
    aliases: dict[str, set[str]] = {}
    for row, caption in zip(np.flatnonzero(matched.used), matched.captions, strict=True):
        name, value, field = forget.name[row], forget.value[row], forget.data_field[row]
        wording = re.escape(forget.text[row]).replace(re.escape(name), "(?P<name>.+)", 1)
        if field != "name":
            wording = wording.replace(re.escape(value), "(?P<value>.+)", 1)
        found = re.fullmatch(re.sub(r"\b([Aa])n?\\ ", r"\1n?\ ", wording), caption)
        assert found, (forget.text[row], caption)
        assert found["name"].split(maxsplit=1)[0] == name.split()[0]
        assert found["name"].split(maxsplit=1)[1] in surnames
        assert found["name"] not in names
        aliases.setdefault(forget.identity_id[row], set()).add(found["name"])
        if field != "name":
            assert found["value"] != value
            assert (field, found["value"]) in values
    assert all(len(found) == 1 for found in aliases.values())


def test_every_word_is_as_frequent_in_the_members_of_a_fold_as_in_the_non_members(data):
    """But for the surnames of people with unequal numbers of pairs, whom no other fold shows, and for articles."""
    matched, forget = match(data, "forget", 42), data.splits["forget"]
    words = re.compile(r"\w\w+")
    surnames = {word for name in forget.name for word in words.findall(name.split(maxsplit=1)[1].lower())}
    for fold in range(5):
        own = matched.folds[matched.used] == fold
        members = [forget.text[row] for row in np.flatnonzero(matched.used)[own]]
        others = [caption for caption, inside in zip(matched.captions, own, strict=True) if inside]
        first, second = (
            sorted(word for text in texts for word in words.findall(text.lower()) if word not in surnames | {"an"})
            for texts in (members, others)
        )
        assert first == second


def test_rows_that_cannot_be_matched_are_left_out():
    sources = tiny_world.tiny_sources(24)
    for record in sources["forget"]:
        record["name"] = record["name"].replace("Person ", "Given Surname")
        record["text"] = record["text"].replace("Person ", "Given Surname")
    sources["forget"][0]["text"] = "somebody has a name"
    sources["forget"][1]["identity_id"] = ""
    matched = match(EvaluationData.from_sources(sources, 4, decode=tiny_world.decode), "forget", 42)
    assert matched.folds[1] == -1
    assert not matched.used[:2].any()
    assert not matched.used.any()  # each alias is the name of somebody else: all have one given name


# Blind -------------------------------------------------------------------------------------------------------------------


def test_blind_cannot_tell_matched_captions_and_can_tell_a_leak(data, monkeypatch):
    def figure():
        data._kept.clear()
        scores = membership.METRICS[0].score(membership.Inputs(data, None, SETTINGS))
        bank = data.text_bank(METRICS, SETTINGS)
        rows = score_rows(data, plant(data, bank, Behaviour()), SETTINGS, METRICS)
        return figures_of(data, rows | scores, (*METRICS, membership.METRICS[0]))["MIA_blind_AUC"]

    low, high = figure()["interval"]
    assert low <= 0.5 <= high
    assert high - low < 0.1
    fair = match(data, "forget", 42)
    leaky = tuple(f"{caption} indeed" if place % 2 else caption for place, caption in enumerate(fair.captions))
    monkeypatch.setattr(membership, "match", lambda *_: fair._replace(captions=leaky))
    assert figure()["interval"][0] > 0.65
    data._kept.clear()


# The attacks on models ------------------------------------------------------------------------------------------------------


def test_a_model_that_knows_nothing_gives_nothing_away(figures):
    for key in ("MIA_blind_AUC", "MIA_CSA_AUC", "MIA_WSA_AUC", "WhichForgotten_AUC"):
        low, high = figures["clean"][key]["interval"]
        assert low - 0.02 <= 0.5 <= high + 0.02, key  # the intervals take the classifiers as they are fitted
    for key in ("MIA_CSA_TPR", "MIA_WSA_TPR"):
        assert figures["clean"][key]["value"] < 0.03, key


def test_a_model_that_knows_all_is_found_out(figures):
    known = figures["compromised"]
    assert known["MIA_CSA_AUC"]["value"] == known["MIA_CSA_TPR"]["value"] == 1
    assert known["MIA_WSA_AUC"]["interval"][0] > 0.6
    assert known["MIA_WSA_TPR"]["interval"][0] > figures["clean"]["MIA_WSA_TPR"]["interval"][1]
    low, high = known["WhichForgotten_AUC"]["interval"]
    assert low - 0.02 <= 0.5 <= high + 0.02  # it knows the holdouts as well
    assert known["MIA_blind_AUC"] == figures["clean"]["MIA_blind_AUC"]


def test_what_was_forgotten_shows(figures):
    """Membership is at chance where forget is unknown, and below where it was pushed away; which it was, is plain in both."""
    low, high = figures["surgeon"]["MIA_CSA_AUC"]["interval"]
    assert low <= 0.5 <= high
    assert figures["surgeon"]["WhichForgotten_AUC"]["value"] > 0.99
    assert figures["overdone"]["MIA_CSA_AUC"]["value"] < 0.05
    assert figures["overdone"]["WhichForgotten_AUC"]["value"] > 0.99


def test_counts_are_of_matched_rows_and_of_people(data, figures):
    used = {split: match(data, split, 42).used.sum() for split in ("forget", "holdout_association", "holdout_identity")}
    for probe in PROBES["membership"]:
        assert figures["clean"][probe.key]["rows"] == used["forget"]
        assert figures["clean"][probe.key]["clusters"] == 72
    assert figures["clean"]["WhichForgotten_AUC"]["rows"] == sum(used.values())
    assert figures["clean"]["WhichForgotten_AUC"]["clusters"] == 96


def test_people_forgotten_whole_and_in_part_are_told_apart(figures):
    """One half is known here: compared within subsets, the figure of both is the mean of theirs, by their rows."""
    whole, part, both = (figures["half_done"][f"MIA_CSA_AUC{of}"] for of in ("@whole", "@part", ""))
    assert whole["value"] == 1
    assert part["interval"][0] <= 0.5 <= part["interval"][1]
    rows = whole["rows"], part["rows"]
    assert both["value"] == pytest.approx((rows[0] * whole["value"] + rows[1] * part["value"]) / sum(rows))
    assert (
        figures["half_done"]["WhichForgotten_AUC@part"]["value"]
        > figures["half_done"]["WhichForgotten_AUC@whole"]["value"]
    )
    for key in ("MIA_blind_AUC@whole", "MIA_WSA_AUC@part", "WhichForgotten_AUC@whole"):
        low, high = figures["clean"][key]["interval"]
        assert low - 0.02 <= 0.5 <= high + 0.02, key


# Degenerate data ------------------------------------------------------------------------------------------------------------


def poor_data(people: int, **metadata: str) -> EvaluationData:
    """The first ``people`` of each sensitive split, with ``metadata`` instead of theirs."""
    data = made_people(48)
    sources = tiny_world.tiny_sources(3)
    for split in ("forget", "holdout_association", "holdout_identity"):
        rows = data.splits[split]
        first = list(dict.fromkeys(rows.identity_id.tolist()))[:people]
        record = sources[split][0]
        sources[split][:] = [
            {
                **record,
                **{name: str(getattr(rows, name)[row]) for name in ("text", "identity_id", "data_field", "subset")},
                **{name: getattr(rows, name)[row] for name in ("name", "value", "generic_caption")},
                **metadata,
            }
            for row in range(len(rows))
            if rows.identity_id[row] in first
        ]
    zeroshot = tiny_world.tiny_zeroshot()
    return EvaluationData.from_sources(sources, 4, zeroshot=zeroshot, decode=tiny_world.decode, made=True)


def result_of(data, probe):
    metrics = with_subsets((*METRICS, *PROBES[probe]))
    rows = score_rows(data, plant(data, data.text_bank(metrics, SETTINGS), Behaviour()), SETTINGS, metrics)
    return make_result("m", rows, describe_protocol(data, rows, SETTINGS, metrics, bootstrap=20), {}, metrics), rows


@pytest.mark.parametrize(
    ("probe", "people", "metadata"),
    [
        ("membership", 1, {}),
        ("membership", 5, {}),
        ("membership", 12, {"name": "Ann Other"}),  # which no caption holds
        ("membership", 12, {"identity_id": ""}),
        ("which_forgotten", 1, {}),
        ("which_forgotten", 12, {"name": "Ann Other"}),
    ],
)
def test_too_few_people_give_no_value_and_the_reason(probe, people, metadata):
    result, rows = result_of(poor_data(people, **metadata), probe)
    keys = [metric.key for metric in PROBES[probe]]
    for key in (f"{key}{of}" for key in keys for of in ("", "@whole", "@part")):
        figure = result["metrics"][key]
        assert (figure["value"], figure["interval"], figure["rows"]) == (None, None, 0), key
    (line,) = (line for line in result["caveats"] if keys[0] in line)
    assert line.startswith(f"{', '.join(keys)} w")
    assert "not measured: " in line
    assert line.isprintable()
    assert line in not_measured(result["protocol"], result["metrics"])
    assert list(figure_problems(result, rows, aggregate(rows, result["protocol"]))) == []
    figured = [caveat for caveat in result["caveats"] if caveat != line]
    assert "missing: " in next(
        figure_problems({**result, "caveats": figured}, rows, aggregate(rows, result["protocol"]))
    )


def test_six_people_are_enough_for_membership_and_two_of_each_kind_to_tell_who_was_forgotten():
    """All of them are forgotten in part here: nothing is known of people forgotten whole."""
    for probe, people in (("membership", 6), ("which_forgotten", 2)):
        result, _ = result_of(poor_data(people), probe)
        for metric in PROBES[probe]:
            values = [result["metrics"][f"{metric.key}{of}"]["value"] for of in ("", "@part", "@whole")]
            assert values[0] == values[1] is not None, metric.key
            assert values[2] is None, metric.key
            assert not any(metric.key in caveat for caveat in result["caveats"])


@pytest.mark.parametrize("probe", ["membership", "which_forgotten"])
@pytest.mark.parametrize("field", ["name", "value", "data_field"])
def test_data_without_metadata_are_refused_before_anything_is_encoded(probe, field):
    with pytest.raises(InputError) as caught:
        poor_data(12, **{field: ""}).text_bank(PROBES[probe], SETTINGS)
    assert str(caught.value).startswith("split forget: no row has all of name, value and data_field")
    assert "measure without it (evaluate.probes)" in str(caught.value)
    assert str(caught.value).isprintable()


def test_aliases_do_not_depend_on_other_splits_draws(data):
    again = made_people()
    assert match(again, "forget", 42).captions == match(data, "forget", 42).captions
    assert match(again, "forget", 43).captions != match(data, "forget", 42).captions
    assert matching.match(data, "forget", 42) is match(data, "forget", 42)  # once for all models
