"""At full size, against the libraries themselves: exported directories load as they stand, and come back to the bit."""

import os

import jax
import numpy as np
import open_clip
import pytest
import torch
import transformers
from random_models import write_model

from salmu_jax import cli
from salmu_jax.interop import parity
from salmu_jax.interop.parity import _pixels, fixed_batch
from salmu_jax.models.clip import Clip, Execution
from salmu_jax.training.checkpoint import load_model

pytestmark = [pytest.mark.slow, pytest.mark.optimised]

# So many images and captions: a few in the suite, which has minutes. The whole comparison:
# ``SALMU_PARITY_ROWS=64 python -m pytest -m slow tests/interop/test_parity.py``.
ROWS = int(os.environ.get("SALMU_PARITY_ROWS", "8"))
AT_A_TIME = 16


@pytest.fixture(scope="module", params=["ViT-B-16", "ViT-B-32-quickgelu"])
def model(request, tmp_path_factory):
    """A model, its exports, and our features of a batch."""
    directory = tmp_path_factory.mktemp(request.param)
    clip, params = write_model(directory / "model", request.param)
    images, tokens = fixed_batch(clip.config, ROWS, seed=1)
    scanned = Clip(clip.config, Execution(scan_layers=True))  # the same features, compiled sooner
    image, text = jax.jit(scanned.encode_image), jax.jit(scanned.encode_text)
    parts = [slice(start, start + AT_A_TIME) for start in range(0, ROWS, AT_A_TIME)]
    ours = [np.concatenate([f(params, x[part]) for part in parts]) for f, x in ((image, images), (text, tokens))]
    with pytest.MonkeyPatch.context() as patch:
        # The comparison that an export makes itself is tested on a small model; here it would only take time.
        patch.setattr(parity, "check", lambda *_: {"compared": False, "reason": "the test compares"})
        for to in ("open_clip", "huggingface"):
            arguments = ["export", "--to", to, "--checkpoint", str(directory / "model")]
            assert cli.main([*arguments, "--output", str(directory / to)]) == 0
    return directory, request.param, params, (images, tokens), ours


def assert_same_features(found, ours):
    for theirs, mine in zip(found, ours, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=0, atol=1e-4)
        assert np.abs(theirs @ theirs.T - np.eye(len(mine))).max() > 0.01  # they are no zeros
        assert np.unique(theirs.round(4), axis=0).shape[0] == len(mine)  # nor all the same


def by_parts(encode, inputs):
    with torch.no_grad():
        return np.concatenate([encode(part).numpy() for part in torch.split(inputs, AT_A_TIME)])


def test_open_clip_loads_the_directory_and_sees_the_same(model):
    directory, name, _, (images, tokens), ours = model
    loaded = open_clip.create_model(
        name, pretrained=str(directory / "open_clip" / "open_clip_model.safetensors")
    ).eval()
    found = (
        by_parts(lambda x: loaded.encode_image(x, normalize=True), _pixels(images)),
        by_parts(lambda x: loaded.encode_text(x, normalize=True), torch.tensor(tokens).long()),
    )
    assert_same_features(found, ours)
    assert len(loaded.state_dict()) == 302


def test_transformers_loads_the_directory_and_sees_the_same(model):
    directory, _, _, (images, tokens), ours = model
    loaded, told = transformers.CLIPModel.from_pretrained(directory / "huggingface", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]

    def normalised(features):
        return torch.nn.functional.normalize(features, dim=-1)

    loaded.eval()
    found = (
        by_parts(lambda x: normalised(loaded.visual_projection(loaded.vision_model(x).pooler_output)), _pixels(images)),
        by_parts(
            lambda x: normalised(loaded.text_projection(loaded.text_model(x).pooler_output)),
            torch.tensor(tokens).long(),
        ),
    )
    assert_same_features(found, ours)


@pytest.mark.parametrize("to", ["open_clip", "huggingface"])
def test_export_and_import_return_every_leaf_bit_for_bit(model, to, tmp_path):
    directory, name, params, _, _ = model
    arguments = ["import", "--from", to, str(directory / to), "--output", str(tmp_path / "back")]
    assert cli.main([*arguments, "--architecture", name]) == 0
    clip, back, manifest = load_model(tmp_path / "back")
    assert clip.config.quick_gelu == name.endswith("quickgelu")
    assert manifest["source"]["format"] == to
    found = dict(jax.tree_util.tree_leaves_with_path(back))
    expected = dict(jax.tree_util.tree_leaves_with_path(params))
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert np.asarray(found[path]).tobytes() == leaf.tobytes(), path
