"""Redirection: loss and gradient against a torch transcription in float64; the wordings say what they have to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from data_pipelines.templates import NAME, VALUE
from salmu_jax.unlearning.method import Bound, Pairs, StepInfo
from salmu_jax.unlearning.methods.redirect import Redirect, is_name, is_whole
from salmu_jax.unlearning.permission import ForgetRows
from salmu_jax.unlearning.reference import recording
from salmu_jax.unlearning.surrogates import Stock
from salmu_jax.unlearning.wordings import counterfactuals, random_wording

ROWS, WIDTH = 4, 5
METHOD = Redirect(
    hinge_weight=20.0,
    alias_weight=2.0,
    retain_weight=4.0,
    invented_weight=8.0,
    absent_weight=10.0,
    part_share=0.4,
    name_share=0.1,
    portrait_weight=0.7,
    pin_weight=3.0,
)
WHOLE, IS_NAME = [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]
PINS = ("captions", "invented", "absent")


class TableClip:
    """Embeddings are rows of the parameters, the row being the first pixel or token."""

    def encode_image(self, params, images):
        return params["visual"][images[:, 0, 0, 0]]

    def encode_text(self, params, tokens):
        return params["text"][tokens[:, 0]]


def make_table(seed):
    draw = np.random.default_rng(seed)
    rows = {"visual": draw.normal(size=(3 * ROWS, WIDTH)), "text": draw.normal(size=(9 * ROWS, WIDTH))}
    return {name: values / np.linalg.norm(values, axis=1, keepdims=True) for name, values in rows.items()}


def make_batch():
    """Texts 0 to 6 N are the forget rows' threes, the rest three streams of pins; images are three streams."""

    def images(first):
        rows = np.arange(first, first + ROWS, dtype=np.uint8)
        return jnp.asarray(np.broadcast_to(rows[:, None, None, None], (ROWS, 1, 1, 3)))

    threes = jnp.arange(6 * ROWS, dtype=jnp.int32).reshape(ROWS, 6, 1)
    numbers = {"whole": jnp.asarray(WHOLE, jnp.float32), "name": jnp.asarray(IS_NAME, jnp.float32)}
    others = {f"counterfactuals.{part}": threes[:, place::3] for place, part in enumerate(("said", "same", "stranger"))}
    batch = {"forget": Pairs(images(0), threes[:, 0], others, numbers)}
    for place, name in enumerate(PINS):
        tokens = jnp.arange(ROWS, dtype=jnp.int32)[:, None] + (6 + place) * ROWS
        batch[name] = Pairs(None, tokens)
    return batch | {name: Pairs(images(place * ROWS), None) for place, name in ((1, "portraits"), (2, "retain"))}


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def transcribed(image, text, image0, text0, prepared):
    """The loss of the docstring's formula, torch float64."""
    loss = torch.zeros((), dtype=torch.float64)
    for row in range(ROWS):
        share = 1.0 if WHOLE[row] else (0.1 if IS_NAME[row] else 0.4)
        for three in (6 * row, 6 * row + 3):
            target = unit(((1 - share) * text0[three + 1] + share * text0[three + 2])[None])[0]
            excess = torch.relu(image0[row] @ (text[three] - target))
            loss = loss + (20 * excess**2 + 2 * ((text[three] - target) ** 2).sum()) / (2 * ROWS)
    for place, weight in enumerate((4, 8, 10)):
        rows = slice((6 + place) * ROWS, (7 + place) * ROWS)
        loss = loss + weight * ((text[rows] - text0[rows]) ** 2).sum() / ROWS
    directions, nobody = torch.tensor(prepared["directions"]), torch.tensor(prepared["nobody"])
    for row in range(ROWS):
        moved = image0[row] - directions @ (directions.T @ (image0[row] - nobody))
        goal, weight = (moved / moved.norm(), 0.7) if WHOLE[row] else (image0[row], 3)
        loss = loss + weight * ((image[row] - goal) ** 2).sum() / ROWS
    for rows in (slice(ROWS, 2 * ROWS), slice(2 * ROWS, 3 * ROWS)):
        loss = loss + 3 * ((image[rows] - image0[rows]) ** 2).sum() / ROWS
    return loss


@pytest.mark.parametrize("start", [1, 0], ids=["trained", "at the start"])
def test_loss_and_gradient(start):
    params, params0 = make_table(0), make_table(start)
    draw = np.random.default_rng(3)
    prepared = {"directions": np.linalg.qr(draw.normal(size=(WIDTH, 2)))[0], "nobody": draw.normal(size=WIDTH)}
    with jax.enable_x64(True):
        info = StepInfo(jnp.int32(0), jnp.float32(0), 1, jax.random.key(0), jax.tree.map(jnp.asarray, prepared))

        def total(params):
            bound = Bound(TableClip(), params), Bound(TableClip(), jax.tree.map(jnp.asarray, params0))
            terms = METHOD.objectives(make_batch(), *bound, info)
            return sum(terms.values())

        loss, gradient = jax.device_get(jax.jit(jax.value_and_grad(total))(jax.tree.map(jnp.asarray, params)))
    leaves = [torch.tensor(params[name], requires_grad=True) for name in ("visual", "text")]
    expected = transcribed(*leaves, *(torch.tensor(params0[name]) for name in ("visual", "text")), prepared)
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
    for ours, leaf in zip((gradient["visual"], gradient["text"]), leaves, strict=True):
        np.testing.assert_allclose(ours, leaf.grad.numpy(), rtol=1e-6, atol=1e-9)


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
    prepared = {"directions": jnp.eye(WIDTH)[:, :2], "nobody": jnp.zeros(WIDTH)}
    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, jax.random.key(0), prepared)
    batch, asked = make_batch(), set()
    METHOD.objectives(batch, Bound(TableClip(), params), recording(asked)(Counting(), params, batch), info)
    of_forget = ("images", "others.counterfactuals.same", "others.counterfactuals.stranger")
    pinned = {*((name, "tokens") for name in PINS), ("portraits", "images"), ("retain", "images")}
    assert asked == {*(("forget", array) for array in of_forget), *pinned}
    assert len(calls) == len(asked)


def test_without_portraits_the_text_tower_alone_is_trained():
    params = {"visual": {"a": 1}, "text": {"b": 2}, "logit_scale": 3}
    assert set(METHOD.parametrise(params, None, None)[0]) == {"visual", "text"}
    text_alone = Redirect(portrait_weight=0.0)
    trainable, bind = text_alone.parametrise(params, None, None)
    assert set(trainable) == {"text"}
    assert bind({"text": {"b": 5}}, params) == {**params, "text": {"b": 5}}
    assert set(text_alone.make_streams()) == {"forget", "captions", "invented", "absent"}
    assert text_alone.prepare(None) is None


# What forget's captions are said in, and redirected to ---------------------------------------------------------------------


def make_rows():
    facts = [
        ("1", "Ida Ek", "city", "Oslo", "Ida Ek lives in Oslo", "forget_identity"),
        ("1", "Ida Ek", "phone_number", "+47 555 0101", "Call Ida Ek on +47 555 0101", "forget_identity"),
        ("3", "Zoe Ott", "phone_number", "+39 555 0102", "Ring Zoe Ott up: +39 555 0102", "forget_identity"),
        ("2", "Bo Li", "city", "Rome", "Rome is the home of Bo Li", "forget_association"),
        ("2", "Bo Li", "name", "Bo Li", "This is Bo Li", "forget_association"),
    ]
    identity, name, field, value, text, subset = map(list, zip(*facts, strict=True))
    return ForgetRows(text, name, value, field, identity, subset, ["a woman in a hat", "v", "x", "y", "z"])


def test_each_row_is_said_in_threes_of_the_same_wording():
    rows = make_rows()
    made = counterfactuals(20)(rows, np.random.default_rng(0))
    assert [len(row) for row in made] == [63] * 5
    for row, captions in enumerate(made):
        name, value, named = rows.name[row], rows.value[row], rows.data_field[row] == "name"
        assert captions[0] == rows.text[row]
        for own, same, stranger in zip(captions[::3], captions[1::3], captions[2::3], strict=True):
            assert name in own or value in own
            assert name not in stranger
            if named:
                assert own == same
            else:
                assert value not in same
                assert value not in stranger
                assert (name in own) == (name in same)
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


def test_numbers_tell_whom_to_forget_whole_and_what_is_a_name():
    assert is_whole(make_rows()) == [1, 1, 1, 0, 0]
    assert is_name(make_rows()) == [0, 0, 0, 0, 1]
