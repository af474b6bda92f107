"""CLIP in PyTorch (transformers), with our parameters: the reference of several tests, independent of any export code."""

import dataclasses

import jax
import numpy as np
import torch
import transformers

from salmu_jax.models.clip import Clip, ClipConfig, TowerConfig
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD


@dataclasses.dataclass(frozen=True)
class Jitted:
    """A Clip whose functions are compiled whole: op by op, each of these tests takes ten seconds."""

    config: ClipConfig

    def __post_init__(self):
        for name in ("init", "encode_image", "encode_text"):
            object.__setattr__(self, name, jax.jit(getattr(Clip(self.config), name)))


SMALL = ClipConfig(
    embed_dim=24,
    image_size=48,
    patch_size=16,
    vision=TowerConfig(width=64, layers=3, heads=4),
    text=TowerConfig(width=48, layers=2, heads=3),
    context_length=20,
    vocab_size=300,
)


def torch_model(config: ClipConfig) -> transformers.CLIPModel:
    act = "quick_gelu" if config.quick_gelu else "gelu"

    def tower(t):
        return {
            "hidden_size": t.width,
            "intermediate_size": int(t.width * t.mlp_ratio),
            "num_hidden_layers": t.layers,
            "num_attention_heads": t.heads,
            "hidden_act": act,
            "layer_norm_eps": 1e-5,
        }

    # CLIP's text model reads the feature at the highest id only while eos_token_id is its old default, 2.
    text = {**tower(config.text), "vocab_size": config.vocab_size, "max_position_embeddings": config.context_length}
    text |= {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
    vision = {**tower(config.vision), "image_size": config.image_size, "patch_size": config.patch_size}
    whole = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.embed_dim)
    return transformers.CLIPModel(whole).eval()


def to_torch(params, config: ClipConfig) -> dict[str, torch.Tensor]:
    """Our parameters under transformers' names, written down independently of any export code."""
    state = {"logit_scale": params["logit_scale"]}

    def blocks(prefix, tree, layers, width):
        for i in range(layers):
            block, name = tree["transformer"][f"blocks_{i}"], f"{prefix}.encoder.layers.{i}"
            for j, part in enumerate("qkv"):
                cut = slice(j * width, (j + 1) * width)
                state[f"{name}.self_attn.{part}_proj.weight"] = block["in_proj"]["kernel"][:, cut].T
                state[f"{name}.self_attn.{part}_proj.bias"] = block["in_proj"]["bias"][cut]
            for ours, theirs in (("out_proj", "self_attn.out_proj"), ("c_fc", "mlp.fc1"), ("c_proj", "mlp.fc2")):
                state[f"{name}.{theirs}.weight"] = block[ours]["kernel"].T
                state[f"{name}.{theirs}.bias"] = block[ours]["bias"]
            for ours, theirs in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2")):
                state[f"{name}.{theirs}.weight"] = block[ours]["scale"]
                state[f"{name}.{theirs}.bias"] = block[ours]["bias"]

    visual, text = params["visual"], params["text"]
    state["vision_model.embeddings.class_embedding"] = visual["class_embedding"]
    state["vision_model.embeddings.patch_embedding.weight"] = np.transpose(visual["conv1"], (3, 2, 0, 1))
    state["vision_model.embeddings.position_embedding.weight"] = visual["positional_embedding"]
    for ours, theirs in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        state[f"vision_model.{theirs}.weight"] = visual[ours]["scale"]
        state[f"vision_model.{theirs}.bias"] = visual[ours]["bias"]
    state["visual_projection.weight"] = visual["proj"].T
    state["text_model.embeddings.token_embedding.weight"] = text["token_embedding"]
    state["text_model.embeddings.position_embedding.weight"] = text["positional_embedding"]
    state["text_model.final_layer_norm.weight"] = text["ln_final"]["scale"]
    state["text_model.final_layer_norm.bias"] = text["ln_final"]["bias"]
    state["text_projection.weight"] = text["text_projection"].T
    blocks("vision_model", visual, config.vision.layers, config.vision.width)
    blocks("text_model", text, config.text.layers, config.text.width)
    return {name: torch.tensor(np.array(value)) for name, value in state.items()}


def random_params(config: ClipConfig, seed: int):
    """Every leaf moved from its initial value, so that no zero bias or unit scale hides a mistake."""
    params = Jitted(config).init(jax.random.key(seed))
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    leaves = [np.asarray(leaf) + 0.05 * rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, leaves)


def random_batch(config: ClipConfig, seed: int, rows: int = 6):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (rows, config.image_size, config.image_size, 3), dtype=np.uint8)
    tokens = np.zeros((rows, config.context_length), np.int32)
    for row in tokens:
        length = rng.integers(0, config.context_length - 1)
        row[: length + 2] = [
            config.vocab_size - 2,
            *rng.integers(1, config.vocab_size - 2, length),
            config.vocab_size - 1,
        ]
    return images, tokens


def torch_features(model, config, images, tokens):
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    pixels = ((torch.tensor(images).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    vision = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    text = model.text_projection(model.text_model(input_ids=torch.tensor(tokens).long()).pooler_output)
    return torch.nn.functional.normalize(vision, dim=-1), torch.nn.functional.normalize(text, dim=-1)


def torch_loss(model, config, images, tokens):
    """The symmetric InfoNCE of a batch, with its graph."""
    vision, text = torch_features(model, config, images, tokens)
    logits = model.logit_scale.exp() * vision @ text.T
    labels = torch.arange(len(images))
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def assert_gradients_equal(gradients, model, config):
    """Our gradients against those that PyTorch left in ``model``, tensor by tensor, within 1e-3."""
    theirs = dict(model.named_parameters())
    for name, gradient in to_torch(gradients, config).items():
        # The gradient of a key bias is zero but for rounding: softmax does not see a constant added to all scores.
        size = theirs[name].grad.norm().clamp(min=1e-2)
        assert (gradient - theirs[name].grad).norm() < 1e-3 * size, name
