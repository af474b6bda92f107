"""PyTorch's side: OpenCLIP as it is installed, or transformers' CLIPModel where it is not; the same weights and inputs."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from benchmarks import inputs
from benchmarks.side import UNLEARNING_TASKS, Spec, Task, serve, versions
from salmu_jax.interop import huggingface, open_clip
from salmu_jax.interop.mapping import to_state
from salmu_jax.interop.parity import _let_torchvision_import, _pixels
from salmu_jax.models.clip import ClipConfig, Params
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD
from salmu_jax.models.zoo import architecture

EVALUATION_BATCH = 32
HAS_OPEN_CLIP = importlib.util.find_spec("open_clip") is not None


def prepare(spec: Spec) -> Task:
    """The task of ``spec``; JAX is used for the shapes of the weights alone and stays on the CPU."""
    torch.set_num_threads(spec.threads)
    _let_torchvision_import()
    task = {
        "train": _train,
        "image": _encode,
        "text": _encode,
        "text_long": _encode,
        "loss": _loss,
        "loss_chunked": _loss,
        "matmul": _matmul,
        "tokenizer": _tokenizer,
        "tokenizer_repeated": _tokenizer,
        "preprocess": _preprocess,
        "evaluate": _evaluate,
        "evaluate_cached": _evaluate,
        **dict.fromkeys(UNLEARNING_TASKS, _unlearn),
    }[spec.name](spec)
    facts = {
        "versions": versions("torch", "torchvision", "open_clip_torch", "transformers"),
        "reference": "open_clip" if HAS_OPEN_CLIP else "transformers",
    }
    return dataclasses.replace(task, facts={**facts, **task.facts})


def _device(spec: Spec) -> torch.device:
    return torch.device("cuda" if spec.device == "gpu" else "cpu")


def _finish(spec: Spec) -> None:
    if spec.device == "gpu":
        torch.cuda.synchronize()


class Towers(torch.nn.Module):
    """The library's model; called, it gives the normalised embeddings of images and captions, and the scale's logarithm."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config = config
        if HAS_OPEN_CLIP:
            import open_clip as library

            self.model = library.CLIP(**open_clip.model_config(config)["model_cfg"])
            self._table = open_clip.table(config)
        else:
            import transformers

            self.model = transformers.CLIPModel(transformers.CLIPConfig(**huggingface.model_config(config)))
            self._table = huggingface.table(config)
        self.load(inputs.parameters(config))

    def load(self, params: Params) -> None:
        state = {name: torch.from_numpy(array) for name, array in to_state(params, self._table).items()}
        self.model.load_state_dict(state, strict=HAS_OPEN_CLIP)  # transformers has buffers besides

    def image(self, pixels: torch.Tensor) -> torch.Tensor:
        if HAS_OPEN_CLIP:
            return self.model.encode_image(pixels, normalize=True)
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return torch.nn.functional.normalize(self.model.visual_projection(pooled), dim=-1)

    def text(self, tokens: torch.Tensor) -> torch.Tensor:
        if HAS_OPEN_CLIP:
            return self.model.encode_text(tokens, normalize=True)
        pooled = self.model.text_model(input_ids=tokens).pooler_output
        return torch.nn.functional.normalize(self.model.text_projection(pooled), dim=-1)

    def forward(self, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return _clip_loss(self.image(pixels), self.text(tokens), self.model.logit_scale.exp())


def _clip_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """OpenCLIP's ClipLoss, written out so that it is there without OpenCLIP."""
    logits = scale * image @ text.T
    labels = torch.arange(len(image), device=image.device)
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def _prepared(spec: Spec):
    """The model, how it is called (compiled on a GPU, under autocast in bfloat16), and its pixels and tokens."""
    config = architecture(spec.model)
    device = _device(spec)
    model = Towers(config).to(device)
    images, tokens = inputs.pairs(config, spec.batch, long=spec.name == "text_long")
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=spec.dtype == "bfloat16")

    def called(function):
        function = torch.compile(function) if spec.device == "gpu" else function

        def call(*arguments):
            with autocast:
                return function(*arguments)

        return call

    return model, called, _pixels(images).to(device), torch.from_numpy(tokens).long().to(device)


def _train(spec: Spec) -> Task:
    model, called, pixels, tokens = _prepared(spec)
    forward = called(model.train())
    forward(pixels, tokens).backward()
    kind = _faster_adamw(model, spec)
    optimizer = _adamw(model, kind)

    def run(index: int):
        _set_rate(optimizer, index)
        optimizer.zero_grad(set_to_none=True)
        loss = forward(pixels, tokens)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.model.logit_scale.clamp_(0, np.log(100))
        _finish(spec)
        return loss

    return Task(run, lambda loss: [loss.item()], {"adamw": kind})


def _set_rate(optimizer: torch.optim.Optimizer, index: int) -> None:
    """The schedule of salmu_jax.training.optimizer.warmup_cosine, within its warm-up and after it."""
    progress = max(0.0, (index - inputs.WARMUP_STEPS) / (inputs.TOTAL_STEPS - inputs.WARMUP_STEPS))
    warm = (index + 1) / inputs.WARMUP_STEPS if index < inputs.WARMUP_STEPS else 0.5 * (1 + np.cos(np.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = inputs.LEARNING_RATE * float(warm) * group["rate"]


def _unlearn(spec: Spec) -> Task:
    from benchmarks import unlearning_torch

    model = Towers(architecture(spec.model)).to(_device(spec))
    return unlearning_torch.task(spec, model, _faster_adamw, _adamw, _set_rate, _finish)


def _adamw(
    model: torch.nn.Module,
    kind: str,
    rate_of: Callable[[str], float] = lambda parameter: 1.0,
    learning_rate: float = inputs.LEARNING_RATE,
) -> torch.optim.AdamW:
    """AdamW of the trained parameters; ``rate_of`` a name is a factor of the learning rate."""
    groups: dict[tuple[bool, float], list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim >= 2, rate_of(name)), []).append(parameter)
    options = [
        {
            "params": parameters,
            "weight_decay": inputs.WEIGHT_DECAY if decays else 0.0,
            "rate": rate,  # for _set_rate; PyTorch keeps what it does not know
            "lr": learning_rate * rate,
        }
        for (decays, rate), parameters in groups.items()
    ]
    return torch.optim.AdamW(options, betas=(inputs.B1, inputs.B2), eps=inputs.EPS, **{kind: True})


def _faster_adamw(model: torch.nn.Module, spec: Spec, rate_of: Callable[[str], float] = lambda parameter: 1.0) -> str:
    """Which of PyTorch's two fast forms of AdamW is faster here, tried with a learning rate of 0."""
    seconds = {}
    for kind in ("fused", "foreach"):
        optimizer = _adamw(model, kind, rate_of, learning_rate=0.0)
        optimizer.step()
        tries = []
        for _ in range(3):
            _finish(spec)
            begin = time.perf_counter()
            optimizer.step()
            _finish(spec)
            tries.append(time.perf_counter() - begin)
        seconds[kind] = min(tries)
    return min(seconds, key=seconds.get)


def _encode(spec: Spec) -> Task:
    model, called, pixels, tokens = _prepared(spec)
    image = spec.name == "image"
    encode = called(model.eval().image if image else model.eval().text)

    def run(_: int):
        with torch.inference_mode():
            result = encode(pixels if image else tokens)
        _finish(spec)
        return result

    return Task(run, lambda result: inputs.probe(result.float().cpu().numpy()))


def _loss(spec: Spec) -> Task:
    width = architecture(spec.model).embed_dim
    arrays = (*inputs.embeddings(spec.batch, width), np.asarray(2.5, np.float32))
    image, text, scale = (torch.from_numpy(array).to(_device(spec)).requires_grad_() for array in arrays)
    loss_of = _clip_loss
    if HAS_OPEN_CLIP:
        import open_clip as library

        loss_of = library.ClipLoss()
    loss_of = torch.compile(loss_of) if spec.device == "gpu" else loss_of

    def run(_: int):
        image.grad = text.grad = scale.grad = None
        loss = loss_of(image, text, scale.exp())
        loss.backward()
        _finish(spec)
        return loss, scale.grad

    return Task(run, lambda result: [part.item() for part in result])


def _matmul(spec: Spec) -> Task:
    left = torch.from_numpy(inputs.embeddings(spec.batch, spec.batch)[0]).to(_device(spec), getattr(torch, spec.dtype))

    def run(_: int):
        result = left @ left
        _finish(spec)
        return result

    return Task(run, lambda result: inputs.probe(result.float().cpu().numpy()))


def _tokenizer(spec: Spec) -> Task:
    import open_clip as library

    tokenizer = library.get_tokenizer("ViT-B-16")
    texts = inputs.Captions(spec.batch, spec.name == "tokenizer_repeated")
    return Task(lambda index: tokenizer(texts[index]), lambda rows: inputs.probe(rows.numpy().T))


def _preprocess(spec: Spec) -> Task:
    import open_clip as library

    transform = library.image_transform(architecture(spec.model).image_size, is_train=False)
    files = inputs.jpegs(spec.batch)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))

    def run(_: int):
        return [transform(Image.open(io.BytesIO(file))) for file in files]

    def value(images):
        return inputs.probe([(image * std + mean).permute(1, 2, 0).numpy() for image in images])

    return Task(run, value)


class _Files(torch.utils.data.Dataset):
    """Image files through OpenCLIP's transform."""

    def __init__(self, paths, size: int):
        import open_clip as library

        self._paths, self._transform = paths, library.image_transform(size, is_train=False)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._paths[index]) as image:
            return self._transform(image)


def _evaluate(spec: Spec) -> Task:
    """Image files to embeddings, as a script has it: a DataLoader with a worker a core, which decodes in every round."""
    config = architecture(spec.model)
    model = Towers(config).eval().to(_device(spec))
    files = _Files(inputs.write_jpegs(inputs.directory() / "files", spec.batch), config.image_size)
    loader = torch.utils.data.DataLoader(
        files, batch_size=EVALUATION_BATCH, num_workers=spec.threads, persistent_workers=True
    )

    def run(_: int):
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=spec.dtype == "bfloat16"):
            return torch.cat([model.image(images.to(_device(spec))).float().cpu() for images in loader])

    return Task(run, lambda result: inputs.probe(result.numpy()), {"batch": EVALUATION_BATCH, "workers": spec.threads})


if __name__ == "__main__":
    serve(prepare)
