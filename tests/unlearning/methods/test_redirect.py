"""Redirection: loss and gradient against a torch transcription in float64; the wordings say what they have to."""

import dataclasses

import forget_rows
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from data_pipelines.templates import NAME, VALUE
from salmu_jax.unlearning.method import Bound, Pairs, StepInfo
from salmu_jax.unlearning.methods.redirect import Prepared, Redirect, attack_strength, covariance, is_whole
from salmu_jax.unlearning.reference import recording
from salmu_jax.unlearning.surrogates import Stock
from salmu_jax.unlearning.wordings import PARTS, counterfactuals, random_wording

ROWS, WIDTH = 4, 5
METHOD = Redirect(
    hinge_weight=20.0,
    alias_weight=2.0,
    retain_weight=4.0,
    invented_weight=8.0,
    absent_weight=10.0,
    likely_weight=6.0,
    detail_weight=7.0,
    part_share=0.4,
    attack_weight=9.0,
    attack_rate=0.05,
    attack_steps=2,
)
LOG_SCALE = 1.5
WHOLE = [1.0, 0.0, 0.0, 1.0]
PINS = ("captions", "portraits", "invented", "absent")


class TableClip:
    """Embeddings are rows of the parameters, the row being the first pixel or token."""

    def encode_image(self, params, images):
        return params["visual"][images[:, 0, 0, 0]]

    def encode_text(self, params, tokens):
        return params["text"][tokens[:, 0]]


def make_table(seed):
    draw = np.random.default_rng(seed)
    rows = {"visual": draw.normal(size=(ROWS, WIDTH)), "text": draw.normal(size=(11 * ROWS, WIDTH))}
    tables = {name: values / np.linalg.norm(values, axis=1, keepdims=True) for name, values in rows.items()}
    return {**tables, "logit_scale": np.float64(LOG_SCALE)}


def make_batch():
    """Texts 0 to 6 N are the forget rows' threes, the rest four streams of pins."""
    images = jnp.asarray(np.broadcast_to(np.arange(ROWS, dtype=np.uint8)[:, None, None, None], (ROWS, 1, 1, 3)))
    threes = jnp.arange(6 * ROWS, dtype=jnp.int32).reshape(ROWS, 6, 1)
    others = {f"counterfactuals.{part}": threes[:, place::3] for place, part in enumerate(PARTS)}
    batch = {"forget": Pairs(images, threes[:, 0], others, {"whole": jnp.asarray(WHOLE, jnp.float32)})}
    for place, name in enumerate(PINS):
        batch[name] = Pairs(None, jnp.arange(ROWS, dtype=jnp.int32)[:, None] + (6 + place) * ROWS)
    return batch


def make_prepared(rows=ROWS):
    """C, and ``rows`` likely captions, the last of the table; what the start model said of them is no part of the table."""
    draw = np.random.default_rng(3)
    some, embedded = draw.normal(size=(3, WIDTH)), draw.normal(size=(rows, WIDTH))
    return Prepared(some.T @ some, np.arange(10 * ROWS, 10 * ROWS + rows, dtype=np.int32)[:, None], embedded)


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def attacked(text, image0, rate):
    """The table of captions after two steps on the first two rows' own; only its start is differentiated."""
    rows, own, tower = torch.arange(2), torch.arange(0, 12, 6), text.detach()
    for _ in range(2):
        tower = tower.clone().requires_grad_()
        logits = np.exp(LOG_SCALE) * image0[:2] @ tower[own].T
        loss = torch.nn.functional.cross_entropy(logits, rows) + torch.nn.functional.cross_entropy(logits.T, rows)
        (gradient,) = torch.autograd.grad(loss / 2, tower)
        tower = (tower - rate * gradient / (gradient.abs() + 1e-6)).detach()
    return text + (tower - text.detach())


def transcribed(text, image0, text0, prepared, chosen, rate):
    """The loss of the docstring's formula, torch float64; ``chosen`` says which likely captions the step draws."""
    detail, embedded = torch.tensor(prepared.detail), torch.tensor(prepared.embedded)

    loss = torch.zeros((), dtype=torch.float64)
    found = attacked(text, image0, rate)
    for row in range(ROWS):
        share = 1.0 if WHOLE[row] else 0.4
        for three in (6 * row, 6 * row + 3):
            target = unit(((1 - share) * text0[three + 1] + share * text0[three + 2])[None])[0]
            excess = torch.relu(image0[row] @ (text[three] - target))
            loss = loss + (20 * excess**2 + 2 * ((text[three] - target) ** 2).sum()) / (2 * ROWS)
            if row >= 2:
                loss = loss + 9 * torch.relu(image0[row] @ (found[three] - target)) ** 2 / ROWS
    for place, (weight, fine) in enumerate(((4, 0), (4, 0), (8, 7), (10, 7))):
        for row in range((6 + place) * ROWS, (7 + place) * ROWS):
            drift = text[row] - text0[row]
            loss = loss + (weight * drift @ drift + fine * drift @ detail @ drift) / ROWS
    for row in chosen:
        drift = text[10 * ROWS + row] - embedded[row]
        loss = loss + (6 * drift @ drift + 7 * drift @ detail @ drift) / len(chosen)
    return loss


@pytest.mark.parametrize("start", [1, 0], ids=["trained", "at the start"])
def test_loss_and_gradient(start):
    params, params0, prepared, key = make_table(0), make_table(start), make_prepared(), jax.random.key(0)
    with jax.enable_x64(True):
        rate = 0.05 * float(attack_strength(key))
        chosen = jax.random.randint(key, (ROWS,), 0, ROWS).tolist()
        info = StepInfo(jnp.int32(0), jnp.float32(0), 1, key, jax.tree.map(jnp.asarray, prepared))

        def total(text):
            model = Bound(TableClip(), {**jax.tree.map(jnp.asarray, params0), "text": text})
            reference = Bound(TableClip(), jax.tree.map(jnp.asarray, params0))
            return sum(METHOD.objectives(make_batch(), model, reference, info).values())

        loss, gradient = jax.device_get(jax.jit(jax.value_and_grad(total))(jnp.asarray(params["text"])))
    leaf = torch.tensor(params["text"], requires_grad=True)
    expected = transcribed(leaf, *(torch.tensor(params0[name]) for name in ("visual", "text")), prepared, chosen, rate)
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-6, atol=1e-9)


def test_the_attacker_is_weak_and_strong():
    """A twentieth of its largest rate and nearly all of it occur, each fourth of the logarithm as often."""
    drawn = np.log([float(attack_strength(jax.random.key(seed))) for seed in range(400)]) / np.log(20)
    counts, _ = np.histogram(drawn, [-1, -0.75, -0.5, -0.25, 0])
    assert counts.sum() == 400
    assert counts.min() > 70


def test_a_row_alone_is_not_attacked():
    """Its loss is finite and the one without an attacker: half of one row is none."""
    params = jax.tree.map(jnp.asarray, make_table(0))
    batch = {name: jax.tree.map(lambda array: array[:1], pairs) for name, pairs in make_batch().items()}
    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, jax.random.key(0), make_prepared())
    model, start = Bound(TableClip(), params), Bound(TableClip(), jax.tree.map(jnp.asarray, make_table(1)))
    terms = METHOD.objectives(batch, model, start, info)
    without = dataclasses.replace(METHOD, attack_weight=0.0).objectives(batch, model, start, info)
    assert terms == without
    assert np.isfinite(list(terms.values())).all()


def test_all_that_a_step_asks_the_start_model_for_can_be_looked_up():
    """An array that is computed from others, such as a wording that the step draws, could not."""
    calls = []

    class Counting(TableClip):
        def encode_image(self, params, images):
            calls.append(images)
            return super().encode_image(params, images)

        def encode_text(self, params, tokens):
            calls.append(tokens)
            return super().encode_text(params, tokens)

    params = jax.tree.map(jnp.asarray, make_table(0))
    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, jax.random.key(0), make_prepared(0))
    batch, asked = make_batch(), set()
    METHOD.objectives(batch, Bound(TableClip(), params), recording(asked)(Counting(), params, batch), info)
    of_forget = ("images", "others.counterfactuals.general", "others.counterfactuals.stranger")
    assert asked == {*(("forget", array) for array in of_forget), *((name, "tokens") for name in PINS)}
    assert len(calls) == len(asked)


def test_the_text_tower_alone_is_trained():
    params = {"visual": {"a": 1}, "text": {"b": 2}, "logit_scale": 3}
    trainable, bind = METHOD.parametrise(params, None, None)
    assert set(trainable) == {"text"}
    assert bind({"text": {"b": 5}}, params) == {**params, "text": {"b": 5}}


def test_all_but_the_token_embedding_learns_slowly():
    params = {"text": {"token_embedding": jnp.zeros(3), "block": {"kernel": jnp.zeros(3)}}}
    gradients = jax.tree.map(jnp.ones_like, params)

    def updates(method):
        transform = method.transform(Redirect.defaults)
        return transform.update(gradients, transform.init(params), params)[0]["text"]

    fast, slow = updates(Redirect(tower_rate=1.0)), updates(Redirect(tower_rate=0.25))
    assert float(jnp.abs(fast["block"]["kernel"]).min()) > 0
    np.testing.assert_array_equal(slow["token_embedding"], fast["token_embedding"])
    np.testing.assert_array_equal(slow["block"]["kernel"], 0.25 * fast["block"]["kernel"])


def test_covariance_is_that_of_the_images():
    images = np.random.default_rng(0).normal(size=(7, WIDTH)) + 10
    expected = np.cov(images.T, bias=True)
    np.testing.assert_allclose(covariance(images), expected / np.linalg.norm(expected, 2), atol=1e-6)
    assert not covariance(np.ones((3, WIDTH))).any()


def test_nothing_is_likely_of_people_who_are_to_be_forgotten_whole():
    params = jax.tree.map(jnp.asarray, make_table(0))
    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, jax.random.key(0), make_prepared(0))
    model = Bound(TableClip(), params)
    assert "likely" not in METHOD.objectives(make_batch(), model, model, info)


# What forget's captions are said in, and redirected to ---------------------------------------------------------------------


def make_rows():
    facts = [
        ("1", "Ida Ek", "city", "Oslo", "Ida Ek lives in Oslo", "forget_identity"),
        ("1", "Ida Ek", "phone_number", "+47 555 0101", "Call Ida Ek on +47 555 0101", "forget_identity"),
        ("3", "Zoe Ott", "phone_number", "+39 555 0102", "Ring Zoe Ott up: +39 555 0102", "forget_identity"),
        ("2", "Bo Li", "city", "Rome", "Rome is the home of Bo Li", "forget_association"),
        ("2", "Bo Li", "name", "Bo Li", "This is Bo Li", "forget_association"),
    ]
    return forget_rows.of_facts(facts, ["a woman in a hat", "v", "x", "y", "z"])


def parts_of(value):
    ends = range(2, len(value) - 2) if len(value) > 4 else []
    return {value, *(value[:end].strip() for end in ends), *(value[end:].strip() for end in ends)}


def test_each_row_is_said_in_threes_of_the_same_wording():
    rows = make_rows()
    made = counterfactuals(20)(rows, np.random.default_rng(0))
    assert [len(row) for row in made] == [63] * 5
    for row, captions in enumerate(made):
        name, value, named = rows.name[row], rows.value[row], rows.data_field[row] == "name"
        assert captions[0] == rows.text[row]
        for said, general, stranger in zip(captions[::3], captions[1::3], captions[2::3], strict=True):
            assert name in said or any(part in said for part in parts_of(value))
            assert name not in stranger or stranger == general
            assert (name in said) == (name in general)
            if name not in said:
                assert general == stranger
            if not named:
                assert value not in general
                assert value not in stranger
        assert len(set(captions[2::3])) > 15  # another stranger each time, unless there is no name
    assert made == counterfactuals(20)(rows, np.random.default_rng(0))
    assert made != counterfactuals(20)(rows, np.random.default_rng(1))


def test_wordings_are_many_and_carry_what_they_are_about():
    stock = Stock.of(make_rows())
    draw = np.random.default_rng(0)
    found = {random_wording("city", stock, ["old", "red"], draw).text for _ in range(300)}
    assert len(found) > 60
    assert all(VALUE in text for text in found)
    assert f"{NAME} {VALUE}" in found
    assert VALUE in found
    of_names = {random_wording("name", stock, ["old", "red"], draw).text for _ in range(300)}
    assert all(NAME in text and VALUE not in text for text in of_names)
    assert NAME in of_names


def test_the_bare_name_is_redirected_only_of_people_forgotten_in_part_and_not_always():
    rows = make_rows()
    made = counterfactuals(60)(rows, np.random.default_rng(0))
    bare, kept = [], []
    for captions, name, value in zip(made, rows.name, rows.value, strict=True):
        threes = zip(captions[::3], captions[1::3], captions[2::3], strict=True)
        of_name = [
            three for three in threes if name in three[0] and not any(part in three[0] for part in parts_of(value))
        ]
        bare.append(len(of_name))
        kept.append(sum(general == stranger for _, general, stranger in of_name))
        assert all(name in stranger for _, general, stranger in of_name if stranger == general)
    assert bare[:3] == kept[:3] == [0, 0, 0]
    assert 0 < kept[3] < bare[3]


def test_a_part_of_the_value_is_said_too():
    rows = make_rows()
    said = counterfactuals(60)(rows, np.random.default_rng(0))[1][3::3]
    cut = [text for text in said if "+47 555 0101" not in text]
    assert 3 < len(cut) < 20
    assert any("Ida Ek" in text for text in cut)
    assert all(any(part in text for part in parts_of("+47 555 0101")) for text in cut)


def test_what_is_said_in_general_is_said_of_another_attribute():
    rows = make_rows()
    captions = counterfactuals(30)(rows, np.random.default_rng(0))[0]
    general = {text for said, text in zip(captions[::3], captions[1::3], strict=True) if "Ida Ek" in said}
    assert general
    assert not any("lives in" in text or "is the home of" in text for text in general)


def test_numbers_tell_whom_to_forget_whole():
    assert is_whole(make_rows()) == [1, 1, 1, 0, 0]
