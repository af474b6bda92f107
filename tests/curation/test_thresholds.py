"""Thresholds come out as known distributions say, and annotations are read as an independent discriminant reads them."""

from __future__ import annotations

import dataclasses
import statistics

import numpy as np
import pytest

from data_pipelines.curation.demographics import fit_discriminant
from data_pipelines.curation.duplicates import find_duplicates
from data_pipelines.curation.embedding import Embedded
from data_pipelines.curation.measures import (
    boundary,
    centre,
    confusions,
    halves_confused,
    mistaken,
    nearest,
    own_similarities,
    pooled_quantile,
)
from data_pipelines.curation.reference import reference_for
from data_pipelines.curation.thresholds import People, Rates, Standard, measure_standard
from data_pipelines.curation.verdicts import Judged, judge
from data_pipelines.portraits.source import AGES, GENDERS, REGIONS, Anchor
from salmu_jax.runtime.errors import InputError

WIDTH = 48


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def person(
    number: int,
    portraits: int = 30,
    spread: float = 0.05,
    *,
    seed: int = 0,
    of: int | None = None,
    unlike: float = 1.5,
) -> tuple:
    """Returns an anchor and its portraits: around a direction of the person's, moved by region, gender and age.

    The more "unlike" others of its region, gender and age a person looks, the less do portraits tell these.
    """
    rng = np.random.default_rng([seed, number if of is None else of])
    anchor = Anchor(number, *(values[rng.integers(len(values))] for values in (REGIONS, GENDERS, AGES)))
    looks = sum(
        np.random.default_rng([7, place, values.index(value)]).normal(size=WIDTH)
        for place, (value, values) in enumerate(zip(anchor[1:], (REGIONS, GENDERS, AGES), strict=True))
    )
    own = unit(looks + unlike * rng.normal(size=WIDTH))
    shots = np.random.default_rng([seed, number, 1])
    vectors = unit(own + spread * shots.normal(size=(portraits, WIDTH)))
    hashes = shots.integers(0, 256, (portraits, 18), dtype=np.uint8)
    names = tuple(f"{number:08d}_{index:03d}_ar-1.00.jpg" for index in range(portraits))
    return anchor, Embedded(names, vectors, hashes)


def people(numbers, **options) -> People:
    anchors, portraits = zip(*(person(number, **options) for number in numbers), strict=True)
    return People(anchors, portraits)


def altered(of: People) -> list[tuple[Embedded, Embedded]]:
    rng = np.random.default_rng(5)
    pairs = []
    for portraits in of.portraits:
        some = portraits.only(slice(0, 4))
        near = some._replace(vectors=unit(some.vectors + 0.002 * rng.normal(size=some.vectors.shape)))
        flipped = some.hashes.copy()
        flipped[:, rng.integers(18)] ^= 1
        pairs.append((some, near._replace(hashes=flipped)))
    return pairs


@pytest.fixture(scope="module")
def standard() -> Standard:
    held_out = people(range(200, 260), seed=1)
    return measure_standard(people(range(200), portraits=6, seed=1), held_out, altered(held_out), Rates())


def test_own_similarities_leave_the_portrait_out():
    vectors = unit(np.random.default_rng(0).normal(size=(7, 5)))
    expected = [
        float(vectors[k].astype(np.float64) @ unit(np.delete(vectors, k, axis=0).sum(axis=0, dtype=np.float64)))
        for k in range(7)
    ]
    assert own_similarities(vectors) == pytest.approx(expected, abs=1e-6)
    assert own_similarities(vectors[:1]).tolist() == [1.0]


def test_confusion_is_the_larger_share_of_portraits_that_are_nearer_to_the_other():
    rng = np.random.default_rng(8)
    identities = [
        unit(np.eye(3)[k] + np.eye(3)[0] + 0.5 * rng.normal(size=(count, 3))) for k, count in enumerate((9, 5, 7))
    ]

    def share(of: int, other: int) -> float:
        taken = []
        for row, vector in enumerate(identities[of]):
            own, others = (
                np.mean(of_one, axis=0) for of_one in (np.delete(identities[of], row, axis=0), identities[other])
            )
            taken.append(vector @ others / np.linalg.norm(others) >= vector @ own / np.linalg.norm(own))
        return float(np.mean(taken))

    found = confusions(identities)
    for of in range(3):
        for other in range(3):
            expected = 0.0 if of == other else max(share(of, other), share(other, of))
            assert found[of, other] == pytest.approx(expected)
    assert 0 < found.max() < 1
    assert mistaken(identities[0], centre(identities[1])[None]) == pytest.approx([share(0, 1)])
    assert halves_confused(identities[0]) == confusions([identities[0][::2], identities[0][1::2]])[0, 1]


def test_a_quantile_has_at_most_the_stated_share_beyond_it():
    values = np.random.default_rng(1).permutation(1000)
    assert pooled_quantile(values, 0.01, low=True) == 10
    assert pooled_quantile(values, 0.01, low=False) == 989
    assert pooled_quantile(values[:20], 0.01, low=True) == values[:20].min()


def test_a_boundary_is_half_way_between_kinds_that_are_apart_and_else_a_quantile_of_the_good():
    rng = np.random.default_rng(2)
    good, bad = rng.normal(1.0, 0.05, 100_000), rng.normal(0.0, 0.05, 100_000)
    assert boundary(good, bad, 0.001) == pytest.approx(0.5, abs=0.01)
    overlapping = rng.normal(0.95, 0.05, 100_000)
    assert boundary(good, overlapping, 0.01) == pytest.approx(statistics.NormalDist(1.0, 0.05).inv_cdf(0.01), abs=0.005)
    assert boundary(good, [], 0.01) == boundary(good, overlapping, 0.01)
    few = boundary(good[:30], overlapping, 0.001)  # the lowest of thirty is no such quantile
    assert few < good[:30].min()
    assert few == pytest.approx(statistics.NormalDist(1.0, 0.05).inv_cdf(0.001), abs=0.05)


def test_the_nearest_other_centre():
    centres = unit(np.random.default_rng(3).normal(size=(9, 4)))
    which, similarity = nearest(centres)
    for k in range(9):
        others = [j for j in range(9) if j != k]
        assert which[k] == max(others, key=lambda j: float(centres[k] @ centres[j]))
        assert similarity[k] == pytest.approx(float(centres[k] @ centres[which[k]]), abs=1e-6)


def test_a_discriminant_is_the_one_of_scikit_learn():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(4)
    vectors = [unit(rng.normal(size=(8, 10)) + np.eye(10)[k % 3] * 2) for k in range(60)]
    values = ["abc"[k % 3] for k in range(60)]
    ours = fit_discriminant(vectors, values)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1, priors=[1 / 3] * 3)
    everything = np.concatenate(vectors).astype(np.float64)
    theirs.fit(everything, np.repeat(values, 8))
    fresh = unit(rng.normal(size=(50, 10)))
    assert ours.scores(fresh) == pytest.approx(theirs.predict_log_proba(fresh), abs=0.05)
    assert (ours.scores(fresh).argmax(axis=1) == theirs.predict_proba(fresh).argmax(axis=1)).all()
    evidence, best = ours.evidence(vectors[0], "a")
    means = ours.scores(vectors[0]).mean(axis=0)
    assert (evidence, best) == (pytest.approx(means[0] - max(means[1:])), "a")
    assert ours.evidence(vectors[0], "b")[1] == "a"
    assert ours.evidence(vectors[0], "never seen")[0] < 0


def test_measured_thresholds_part_good_from_bad(standard):
    report = standard.report
    assert report["planted"]["0% of the portraits are somebody else's"] == 0
    assert report["planted"]["20% of the portraits are somebody else's"] == 1
    assert report["planted"]["the portraits drift towards somebody else"] > 0.9
    for found in report["annotations"].values():
        assert found["wrong_annotations_found"] > 0.95
        assert found["right_annotations_called_wrong"] == 0
    good, bad = report["same_person"], report["other_person"]
    thresholds = standard.thresholds
    assert bad["portrait_to_another_centre"]["quantiles"]["100 %"] < thresholds.portrait
    assert thresholds.portrait < good["portrait_to_own_centre"]["quantiles"]["0 %"]
    assert bad["confusion_with_the_most_alike"]["quantiles"]["100 %"] < thresholds.distinctness
    assert thresholds.distinctness < good["confusion_of_two_halves"]["quantiles"]["0 %"]
    assert 1 < thresholds.duplicate_distance < 72  # bits; distinct hashes are drawn, and differ in half of 144
    assert report["distinct_portraits_taken_for_duplicates"] == {"pairs": 60 * 435, "alike": 0}


def test_where_looks_overlap_a_higher_rate_finds_more_wrong_genders_at_the_stated_false_alarms():
    trained, held_out = (people(numbers, portraits=6, unlike=3.2) for numbers in (range(500), range(500, 620)))
    lax, strict = (
        measure_standard(trained, held_out, altered(held_out), Rates(annotations=rate)) for rate in (0.01, 0.001)
    )
    found = lax.report["annotations"]["gender"]
    assert 0.9 < found["looks_as_annotated"] < 1
    assert 0 < found["right_annotations_called_wrong"] <= 0.01
    assert found["wrong_annotations_found"] > 0.6
    assert found["wrong_annotations_found"] > strict.report["annotations"]["gender"]["wrong_annotations_found"] + 0.1

    fresh = people(range(620, 920), portraits=6, unlike=3.2)
    discriminant, threshold = lax.discriminants["gender"], lax.thresholds.evidence["gender"]
    called_wrong, missed = 0, 0
    for anchor, vectors in zip(fresh.anchors, fresh.vectors(), strict=True):
        other = GENDERS[1 - GENDERS.index(anchor.gender)]
        called_wrong += discriminant.evidence(vectors, anchor.gender)[0] < threshold
        missed += discriminant.evidence(vectors, other)[0] >= threshold
    assert called_wrong <= 0.03 * 300
    assert missed < 0.4 * 300


@pytest.mark.parametrize(("anchors", "trained"), [(1, 700), (126, 700), (600, 960), (1_000, 1_600), (5_000, 1_600)])
def test_more_anchors_take_an_encoder_of_more_people(anchors, trained):
    assert reference_for(anchors).trained == trained


def test_too_few_held_out_people_are_refused():
    few = people(range(5))
    with pytest.raises(InputError, match="has 5 held-out identities; 20 or more"):
        measure_standard(few, few, altered(few), Rates())


# --- verdicts --------------------------------------------------------------------------------------------------------


def verdicts(judged: list[Judged]) -> dict[int, str | None]:
    return {one.anchor.number: one.dropped and one.dropped.reason for one in judged}


def test_good_people_pass_and_bad_ones_do_not(standard):
    data = people(range(400, 460), seed=1)
    assert set(verdicts(judge(data, standard, keep=60, fewest=20)).values()) == {None}
    portraits, anchors = list(data.portraits), list(data.anchors)
    portraits[3] = portraits[3]._replace(
        vectors=np.concatenate([portraits[4].vectors[:9], portraits[3].vectors[9:]])  # another person
    )
    portraits[7] = portraits[7]._replace(
        vectors=np.concatenate([portraits[4].vectors[:1], portraits[7].vectors[1:]])  # one of thirty
    )
    anchors[10], portraits[10] = person(410, spread=0.053, seed=1, of=420)  # looks like 420, and is less consistent
    anchors[30] = anchors[30]._replace(gender=GENDERS[1 - GENDERS.index(anchors[30].gender)])
    portraits[40] = portraits[40].only(slice(0, 12))
    judged = judge(People(anchors, portraits), standard, keep=60, fewest=20)
    assert {number: reason for number, reason in verdicts(judged).items() if reason} == {
        403: "inconsistent",
        410: "indistinct",
        430: "gender",
        440: "too few",
    }
    assert judged[10].dropped.other == "00000420"
    assert {row: why.reason for row, why in judged[7].files.items()} == {0: "outlying"}
    assert judged[7].rows.tolist() == list(range(1, 30))


def test_the_best_by_score_stay(standard):
    data = people(range(400, 430), seed=1)
    judged = judge(data, standard, keep=10, fewest=5)
    kept = [one for one in judged if one.dropped is None]
    surplus = [one for one in judged if one.dropped is not None]
    assert len(kept) == 10
    assert min(one.score for one in kept) >= max(one.score for one in surplus)
    assert {one.dropped.reason for one in surplus} == {"surplus"}
    for one in kept:
        assert one.score == pytest.approx(one.consistency - one.nearest_similarity, abs=1e-6)


def test_of_three_alike_the_most_consistent_is_left(standard):
    alike = [person(500 + k, spread=0.03 + 0.01 * k, seed=1, of=500) for k in range(3)]
    others = [person(number, seed=1) for number in range(400, 410)]
    anchors, portraits = zip(*alike, *others, strict=True)
    judged = verdicts(judge(People(anchors, portraits), standard, keep=20, fewest=5))
    assert [judged[500 + k] for k in range(3)] == [None, "indistinct", "indistinct"]


def test_duplicates_are_alike_both_by_embedding_and_by_hash():
    base = np.eye(4, dtype=np.float32)
    vectors = np.stack([base[0], base[0], base[1], base[0], base[2]])
    hashes = np.array([[0, 0], [0xFF, 0], [0, 0], [0, 1], [0xFF, 0]], np.uint8)
    portraits = Embedded(tuple("abcde"), vectors, hashes)
    found = find_duplicates(portraits, 0.9, 2)
    assert [(one.row, one.of, one.distance) for one in found] == [(3, 0, 1)]
    assert [(one.row, one.of) for one in find_duplicates(portraits, 0.9, 8)] == [(1, 0), (3, 0)]


def test_a_dropped_duplicate_does_not_drop_others():
    """The middle one of a chain goes; what is like it alone stays."""
    angles = np.array([0.0, 0.2, 0.4])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    portraits = Embedded(tuple("abc"), vectors, np.zeros((3, 2), np.uint8))
    assert [(one.row, one.of) for one in find_duplicates(portraits, float(np.cos(0.3)), 0)] == [(1, 0)]


def test_rates_are_part_of_the_report(standard):
    assert standard.report["rates"] == dataclasses.asdict(Rates())
