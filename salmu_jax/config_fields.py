"""Declares the fields of the config, each once: its type and default, its meaning, and its range.

A field whose ``how`` is true changes how something is computed, or what is kept on the way, but not the result, except for
the last bits of sums: it is not part of an output's identity, and a run may resume with another value.

Everything else follows from the declarations: the config that ``base_config()`` returns, the checks of
``config.py``, and the identity of outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from salmu_jax import foundation
from salmu_jax.runtime.limits import ADAMW, AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Limits
from salmu_jax.runtime.paths import local_path, model_path, storage_path

_SEED = Limits(0, 2**32 - 1)
# Those of evaluation/registry.py.
PROBES = ("indirect", "holdout_paraphrase", "membership", "which_forgotten", "relearn", "weights")
_EPOCHS = Limits(0, 1_000_000, low_open=True)


class Field(NamedTuple):
    """A declared field.

    Attributes:
      default: its default, whose type is that of the field; a tuple holds elements of ``choices``, or, without these, as many
        numbers as the default, in increasing order.
      meaning: what it means, in a few words.
      limits: the range of a number, or of each of a tuple; None: checked where it is used.
      choices: the possible values of a text, or elements of a tuple (no duplicates).
      path: checks and expands a path; an empty one is left alone if it is the default.
      empty: whether a tuple may be empty.
      how: see the module.
    """

    default: Any
    meaning: str
    limits: Limits | None = None
    choices: tuple[str, ...] = ()
    path: Callable[[Any, str], Any] | None = None
    empty: bool = False
    how: bool = False


class Names(NamedTuple):
    """A group whose members users name: each a group of fields, checked where it is used."""

    meaning: str
    example: str  # the name and a field of a member, for messages


def field(default: Any, meaning: str, limits: Limits | None = None, **known: Any) -> Any:
    """Declares a :class:`Field`, as the default of an attribute."""
    return dataclasses.field(default=default, metadata={"field": Field(default, meaning, limits, **known)})


def names(meaning: str, example: str) -> Any:
    """Declares a group of :class:`Names`."""
    return dataclasses.field(default_factory=dict, metadata={"field": Names(meaning, example)})


@dataclasses.dataclass(frozen=True)
class World:
    """A made world. The ranges are those of data_pipelines/world/generate.py.

    Of the kind ``full``, only ``kind``, ``seed``, ``portrait_size``, ``scene_size`` and ``workers`` count; the group ``full``
    has the others.
    """

    kind: str = field(
        "small",
        "small: one program draws it in minutes; full: made in steps, at the size of the release or in proportion",
        choices=("small", "full"),
    )
    seed: int = field(0, "of everything in it", _SEED)
    personas: int = field(774, "fictitious people", Limits(4, 5_000))
    pairs_per_association: int = field(9, "image-caption pairs of each attribute of a person", Limits(1, 1_000))
    portrait_size: int = field(512, "pixels, longest side", Limits(16, 1_024))
    retain_joint: int = field(1_000, "generic pairs of people who have sensitive ones", Limits(1, 10**6))
    retain_disjoint: int = field(16_000, "generic pairs of other people", Limits(1, 10**6))
    fragile: int = field(1_600, "pairs of the fragile set", Limits(1, 10**6))
    scenes: int = field(100_000, "pairs of the retain base", Limits(1, 10**7))
    scene_size: int = field(128, "pixels, each side", Limits(16, 1_024))
    zeroshot_images: int = field(10_000, "images of the zero-shot classification", Limits(48, 10**7))
    workers: int = field(2, "processes that draw, as many as there are cores at most", Limits(0, 1_024))


@dataclasses.dataclass(frozen=True)
class Full:
    """A world of the kind ``full``, see docs/full_size.md."""

    people: int = field(774, "who are in it; the pairs are those published for 774, or in proportion", Limits(4, 10**6))
    anchors: int = field(0, "identities before curation; 0: 1,000 for 774 people, or in proportion", Limits(0, 10**6))
    portraits: tuple[int, ...] = field(
        (98, 108), "the fewest and the most that are drawn of an anchor", Limits(1, 1_000)
    )
    images: str = field(
        "", "portraits of another generator, one folder per identity; empty: they are drawn", path=local_path
    )
    reference: str = field(
        "",
        "other people of that generator, one folder per identity, annotated rightly, to measure curation on",
        path=local_path,
    )
    encoder: str = field(
        "", "what curation embeds with: a file of weights (.npz), or module:attribute; empty: it trains one"
    )
    scenes: int = field(0, "drawn pairs of a retain base; the release has none", Limits(0, 10**8))
    zeroshot_images: int = field(
        0, "drawn images of a zero-shot classification; the release has none", Limits(0, 10**7)
    )
    variants: int = field(12, "captions of each attribute of a person", Limits(5, 1_000))
    paraphrases: str = field("", "a JSONL file of captions; empty: those of the grammar", path=local_path)
    fragile_model: str = field(
        "", "the model whose similarities choose the fragile set; empty: curation's embeddings", path=model_path
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """The architecture, and how it is computed."""

    architecture: str = field("ViT-B-16", "a name of models/zoo.py")
    compute_dtype: str = field("float32", "or bfloat16, on accelerators")
    image_size: int = field(0, "pixels; 0: the architecture's own", Limits(0, 4_096))
    scan_layers: bool = field(False, "compile one block and loop over it: compiles faster, same results", how=True)
    remat: str = field("none", "what the backward pass recomputes: none, dots (all but the matmuls) or full", how=True)
    attention: str = field("auto", "plain, cpu, cudnn (GPUs, bfloat16), or auto: the fastest where it runs", how=True)
    kernels: str = field("auto", "of norms and GELUs: plain, triton (GPUs, bfloat16), or auto likewise", how=True)


@dataclasses.dataclass(frozen=True)
class Data:
    """How images are read."""

    cache_decoded: bool = field(False, "keep all decoded images in memory: for small data sets", how=True)
    augment: bool = field(True, "random resized crops, scale 0.9 to 1 as in OpenCLIP")
    workers: int = field(
        -1,
        "processes that decode; 0: this one; -1: chosen by the machine and the data",
        Limits(-1, 1_024),
        how=True,
    )


@dataclasses.dataclass(frozen=True)
class Mesh:
    """How the devices are divided; 'data' takes what these leave."""

    fsdp: int = field(
        1, "devices that share one copy of the parameters and of the optimizer state", AT_LEAST_ONE, how=True
    )
    tensor: int = field(1, "devices that share the matmuls of each layer", AT_LEAST_ONE, how=True)


@dataclasses.dataclass(frozen=True)
class Train:
    """How the foundation models are trained."""

    epochs: float = field(32.0, "passes over the model's own pairs", _EPOCHS)
    batch_size: int = field(32_768, "pairs per step, over all devices", AT_LEAST_ONE)
    learning_rate: float = field(5e-4, "the peak of the schedule", ADAMW["learning_rate"])
    warmup_steps: int = field(10_000, "of linear warm-up", ADAMW["warmup_steps"])
    weight_decay: float = field(0.2, "decoupled, of matrices", ADAMW["weight_decay"])
    b1: float = field(0.9, "of Adam", ADAMW["b1"])
    b2: float = field(0.98, "of Adam", ADAMW["b2"])
    eps: float = field(1e-6, "of Adam", ADAMW["eps"])
    clip_norm: float = field(0.0, "largest norm of the gradient; 0: no clipping", ADAMW["clip_norm"])
    mask_duplicates: bool = field(False, "equal captions in a batch are not each other's negatives")
    loss: str = field("infonce", "or sigmoid (SigLIP)")
    loss_form: str = field("plain", "or chunked, ring: the same numbers in less memory", how=True)
    loss_chunk: int = field(
        1_024, "captions that the chunked and ring losses compare with at a time", AT_LEAST_ONE, how=True
    )
    microbatch: int = field(
        0,
        "pairs embedded at a time (gradient caching), over all devices; 0: the whole batch",
        NOT_NEGATIVE,
        how=True,
    )
    steps_per_call: int = field(1, "steps per device call (a scan); more for small models", AT_LEAST_ONE, how=True)
    save_every: int = field(500, "steps between saved states", AT_LEAST_ONE, how=True)
    save_minutes: float = field(
        0.0, "also save when so many minutes have passed; 0: by steps alone", NOT_NEGATIVE, how=True
    )
    keep_last: int = field(2, "saved states that are kept", AT_LEAST_ONE, how=True)
    keep_every: int = field(0, "states at multiples of it are kept too; 0: none", NOT_NEGATIVE, how=True)
    state_dir: str = field(
        "", "where states go, also gs://BUCKET/PATH; empty: below the workdir", path=storage_path, how=True
    )
    evaluate_every: int = field(0, "steps between zero-shot and retrieval evaluations; 0: none", NOT_NEGATIVE, how=True)


@dataclasses.dataclass(frozen=True)
class Log:
    """Where metrics of training and unlearning go besides metrics.jsonl."""

    tensorboard: bool = field(False, "TensorBoard event files, in logs/NAME", how=True)
    wandb: str = field("", "a Weights & Biases project; empty: none", how=True)


@dataclasses.dataclass(frozen=True)
class Unlearn:
    """What is unlearned; a run may have a seed and retain splits of its own."""

    seed: int = field(42, "of all that a run draws", _SEED)
    retain: tuple[str, ...] = field(
        ("salmu/retain_synth",),
        "the splits that a method may read besides forget: retain_synth, as published, and optionally retain_pairs",
        choices=("salmu/retain_synth", "retain_pairs/train"),
    )
    steps_per_call: int = field(1, "steps per device call (a scan)", AT_LEAST_ONE, how=True)
    save_every: int = field(500, "steps between saved states", AT_LEAST_ONE, how=True)
    evaluate_every: int = field(
        0, "steps between evaluations on forget and retain pairs; 0: none", NOT_NEGATIVE, how=True
    )
    cache_reference: str = field(
        "auto",
        "look up what the start model makes of fixed rows, instead of computing it in every step: on, off, or auto: where it"
        " saves time",
        choices=("auto", "on", "off"),
        how=True,
    )
    sandbox: str = field(
        "off", "on: methods run below bwrap or unshare, which hide all but their view", choices=("off", "on"), how=True
    )
    methods: Mapping[str, Any] = names(
        "{method: its fields}: one run a method; without fields it runs as published", "METHOD.epochs"
    )
    runs: Mapping[str, Any] = names("{name: fields of the run and its method}, see unlearning/runs.py", "RUN.method")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """How models are measured."""

    seed: int = field(42, "of galleries, shuffled pairs and resamples: compared results have the same", _SEED)
    batch_size: int = field(
        0, "rows that a device encodes at a time; 0: 256, or 32 large images on CPUs", NOT_NEGATIVE, how=True
    )
    cache_pixels: str = field(
        "auto", "keep decoded images in WORKDIR/cache: on, off, or auto: where they fit", how=True
    )
    draws: str = field("ours", "of RetFail's galleries, or released: row by row those of the released evaluator")
    idzsc_prompt: str = field("a photo of {name}", "of the zero-shot identification")
    probes: tuple[str, ...] = field(
        ("indirect", "holdout_paraphrase", "membership", "which_forgotten"),
        "what is measured besides, see docs/metrics.md",
        choices=PROBES,
        empty=True,
    )
    probe_form: str = field(
        "short", "of probes that cost time: short, or full, which asks more of each", choices=("short", "full")
    )
    relearn_rates: tuple[float, ...] = field(
        (1e-6, 1e-5, 1e-4),
        "three learning rates of the probe 'relearn', of which the strongest counts; small towers need larger ones",
        POSITIVE,
    )
    bootstrap: int = field(1_000, "resamples of the identities, for the intervals", Limits(1, 1_000_000))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """How options of methods are selected, within what methods may read; see docs/sweep.md."""

    name: str = field("sweep", "of its output, WORKDIR/sweep/NAME")
    methods: Mapping[str, Any] = names(
        "{method: {field: values}}: a list of values, a range (low, high, scale), or one value", "METHOD.learning_rate"
    )
    search: str = field("grid", "all combinations of lists, or random draws", choices=("grid", "random"))
    trials: int = field(0, "settings of each method that a random search draws", Limits(0, 100_000))
    budgets: tuple[str, ...] = field(
        ("1x",),
        "passes over the pairs to forget, the same for every method; own: each method's own epochs",
        choices=("1x", "2x", "5x", "own"),
    )
    seeds: int = field(1, "runs of each setting, with the seeds unlearn.seed, unlearn.seed + 1, ...", Limits(1, 1_000))
    share: float = field(
        1.0, "of forget's people who make the validation world: fewer are faster", Limits(0, 1, low_open=True)
    )
    seed: int = field(42, "of the validation world, and of the draws of a random search", _SEED)
    probes: tuple[str, ...] = field(
        ("indirect",), "what is measured of a trial besides the metrics", choices=PROBES, empty=True
    )
    rule: str = field(
        "largest", "what a trial is scored by: its largest shortfall, or the mean", choices=("largest", "mean")
    )
    at_a_time: int = field(1, "trials that run side by side, a process each", Limits(1, 1_024), how=True)


@dataclasses.dataclass(frozen=True)
class Report:
    """What the report shows."""

    people: int = field(6, "personas whose portraits are shown", NOT_NEGATIVE)


@dataclasses.dataclass(frozen=True)
class Config:
    """All fields; the defaults are the benchmark as published, as far as this is public."""

    name: str = field("salmu", "heads the report")
    workdir: str = field("runs/salmu", "every output goes below it", path=model_path)
    seed: int = field(42, "of the foundation models: their order of pairs, crops and first weights", _SEED)
    models: tuple[str, ...] = field(
        foundation.REQUIRED,
        "which foundation models 'pretrain' trains; with 'retrained', 'bench' and the report have it too",
        choices=foundation.NAMES,
    )
    world_dir: str = field(
        "", "a directory in the released layout; empty: a world is made, from the fields of 'world'", path=local_path
    )
    zeroshot_dir: str = field(
        "",
        "a zero-shot set (CLIP_benchmark's or timm's tars, TFDS' imagenet2012, or a folder a class) for GenKnow; empty: the"
        " world's zeroshot/",
        path=local_path,
    )
    retain_dir: str = field(
        "",
        "retain pairs that 'salmu data retain' has built, which are linked, not copied; empty: the world's retain/",
        path=local_path,
    )
    datasets_dir: str = field(
        "", "built data sets that work directories share; empty: WORKDIR/datasets", path=model_path, how=True
    )
    world: World = dataclasses.field(default_factory=World)
    full: Full = dataclasses.field(default_factory=Full)
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    train: Train = dataclasses.field(default_factory=Train)
    log: Log = dataclasses.field(default_factory=Log)
    unlearn: Unlearn = dataclasses.field(default_factory=Unlearn)
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)
    sweep: Sweep = dataclasses.field(default_factory=Sweep)
    report: Report = dataclasses.field(default_factory=Report)


def declared(section: type = Config, prefix: str = "") -> dict[str, Field | Names]:
    """Returns all fields of a section by their dotted names."""
    found: dict[str, Field | Names] = {}
    for one in dataclasses.fields(section):
        name = f"{prefix}{one.name}"
        if "field" in one.metadata:
            found[name] = one.metadata["field"]
        else:  # a group of fields
            found |= declared(one.default_factory, f"{name}.")  # type: ignore[arg-type]
    return found
