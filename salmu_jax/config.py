"""The configuration: every field with its default and type, and how a config file is read and checked.

A config file is Python with a ``get_config()`` that calls :func:`base_config`, changes fields and returns the config
(ml_collections). The command line overrides fields, ``--config.train.epochs=3``. An unknown field or a wrong type is refused
in one line.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.limits import ADAMW, AT_LEAST_ONE, NOT_NEGATIVE, Limits
from salmu_jax.runtime.messages import did_you_mean
from salmu_jax.runtime.nested import flatten
from salmu_jax.runtime.paths import local_path, model_path, storage_path
from salmu_jax.runtime.text import safe_text

# The keys below this path are method names, checked against the registry of methods by ``unlearning``.
_METHODS = "unlearn.methods"

# The ranges of numbers; those of 'world' are checked where worlds are made.
_LIMITS = {
    "seed": Limits(0, 2**32 - 1),
    "evaluate.seed": Limits(0, 2**32 - 1),
    "model.image_size": Limits(0, 4_096),
    "data.workers": Limits(-1, 1_024),
    "mesh.fsdp": AT_LEAST_ONE,
    "mesh.tensor": AT_LEAST_ONE,
    "train.epochs": Limits(0, 1_000_000, low_open=True),
    "train.batch_size": AT_LEAST_ONE,
    "train.steps_per_call": AT_LEAST_ONE,
    "train.loss_chunk": AT_LEAST_ONE,
    "train.microbatch": NOT_NEGATIVE,
    "train.save_every": AT_LEAST_ONE,
    "train.save_minutes": NOT_NEGATIVE,
    "train.keep_last": AT_LEAST_ONE,
    "train.keep_every": NOT_NEGATIVE,
    "train.evaluate_every": NOT_NEGATIVE,
    "unlearn.steps_per_call": AT_LEAST_ONE,
    "unlearn.save_every": AT_LEAST_ONE,
    "evaluate.batch_size": NOT_NEGATIVE,
    "evaluate.bootstrap": Limits(1, 1_000_000),
    "report.people": NOT_NEGATIVE,
    **{f"train.{name}": limits for name, limits in ADAMW.items()},
}
# The possible elements of tuples, none of which may be empty or hold an element twice.
_CHOICES = {
    "models": ("clean", "compromised"),
    "unlearn.retain": ("salmu/retain_synth", "retain_pairs/train"),  # what a method may see besides forget
}
_PATHS = {
    "workdir": model_path,
    "world_dir": local_path,
    "zeroshot_dir": local_path,
    "train.state_dir": storage_path,
}
_MAY_BE_EMPTY = ("world_dir", "zeroshot_dir", "train.state_dir")

# Fields that change how something is computed, or what is kept on the way, but not the result, except for the last bits of
# sums: a run may resume with other values of these, on other hardware.
_HOW = (
    "mesh",
    "model.scan_layers",
    "model.remat",
    "model.attention",
    "model.kernels",
    "data.workers",
    "data.cache_decoded",
    "train.loss_form",
    "train.loss_chunk",
    "train.microbatch",
    "train.steps_per_call",
    "train.save_every",
    "train.save_minutes",
    "train.keep_last",
    "train.keep_every",
    "train.state_dir",
    "train.evaluate_every",
    "evaluate.batch_size",
    "evaluate.cache_pixels",
)


def base_config() -> ConfigDict:
    """Returns all fields with their defaults: the benchmark as published, as far as this is public."""
    config = ConfigDict()
    config.name = "salmu"  # heads the report
    config.workdir = "runs/salmu"  # every output goes below it
    config.seed = 42  # of training and unlearning; all draws follow from it
    config.models = ("clean", "compromised")  # which foundation models 'pretrain' trains

    # A directory in the released layout; empty: a world is made, from the fields of 'world'.
    config.world_dir = ""
    # A zero-shot set (CLIP_benchmark's or timm's tars, or a folder a class) for GenKnow; empty: the world's zeroshot/.
    config.zeroshot_dir = ""
    config.world = ConfigDict()
    config.world.seed = 0
    config.world.personas = 774
    config.world.pairs_per_association = 9
    config.world.portrait_size = 512  # pixels, longest side
    config.world.retain_joint = 1_000
    config.world.retain_disjoint = 16_000
    config.world.fragile = 1_600
    config.world.scenes = 100_000
    config.world.scene_size = 128
    config.world.zeroshot_images = 10_000
    config.world.workers = 2

    config.model = ConfigDict()
    config.model.architecture = "ViT-B-16"  # a name of models/zoo.py
    config.model.compute_dtype = "float32"  # or bfloat16, on accelerators
    config.model.image_size = 0  # pixels; 0: the architecture's own
    config.model.scan_layers = False  # compile one block and loop over it: compiles faster, same results
    config.model.remat = "none"  # what the backward pass recomputes: none, dots (all but the matmuls) or full
    config.model.attention = "auto"  # plain, cpu, cudnn (GPUs, bfloat16), or auto: the fastest where it runs
    config.model.kernels = "auto"  # of norms and GELUs: plain, triton (GPUs, bfloat16), or auto likewise

    config.data = ConfigDict()
    config.data.cache_decoded = False  # keep all decoded images in memory: for small data sets
    config.data.augment = True  # random resized crops, scale 0.9 to 1 as in OpenCLIP
    config.data.workers = -1  # processes that decode; 0: this one; -1: chosen by the machine and the data

    # How the devices are divided; 'data' takes what these leave.
    config.mesh = ConfigDict()
    config.mesh.fsdp = 1  # devices that share one copy of the parameters and of the optimizer state
    config.mesh.tensor = 1  # devices that share the matmuls of each layer

    config.train = ConfigDict()
    config.train.epochs = 32.0  # passes over the model's own pairs
    config.train.batch_size = 32_768  # pairs a step, over all devices
    config.train.learning_rate = 5e-4
    config.train.warmup_steps = 10_000
    config.train.weight_decay = 0.2
    config.train.b1 = 0.9
    config.train.b2 = 0.98
    config.train.eps = 1e-6
    config.train.clip_norm = 0.0  # 0: no clipping
    config.train.mask_duplicates = False  # equal captions in a batch are not each other's negatives
    config.train.loss = "infonce"  # or sigmoid (SigLIP)
    config.train.loss_form = "plain"  # or chunked, ring: the same numbers in less memory
    config.train.loss_chunk = 1_024  # captions that the chunked and ring losses compare with at a time
    config.train.microbatch = 0  # pairs embedded at a time (gradient caching), over all devices; 0: the whole batch
    config.train.steps_per_call = 1  # steps a device call (a scan); more for small models
    config.train.save_every = 500  # steps between saved states
    config.train.save_minutes = 0.0  # also save when so many minutes have passed; 0: by steps alone
    config.train.keep_last = 2  # saved states that are kept
    config.train.keep_every = 0  # states at multiples of it are kept too; 0: none
    config.train.state_dir = ""  # where states go, also gs://BUCKET/PATH; empty: below the workdir
    config.train.evaluate_every = 0  # steps between zero-shot and retrieval evaluations; 0: none

    config.log = ConfigDict()
    config.log.tensorboard = False  # TensorBoard event files beside the metrics
    config.log.wandb = ""  # a Weights & Biases project; empty: none

    config.unlearn = ConfigDict()
    # The splits that a method may read besides forget: retain_synth, as published, and optionally retain_pairs.
    config.unlearn.retain = ("salmu/retain_synth",)
    config.unlearn.steps_per_call = 1
    config.unlearn.save_every = 500
    # {method: {field of Hyper: value}}; a method without fields runs as published.
    config.unlearn.methods = ConfigDict()

    config.evaluate = ConfigDict()
    config.evaluate.seed = 42  # of galleries, shuffled pairs and resamples: compared results have the same
    config.evaluate.batch_size = 0  # rows that a device encodes at a time; 0: 256, or 32 large images on CPUs
    config.evaluate.cache_pixels = "auto"  # keep decoded images in WORKDIR/cache: on, off, or auto: where they fit
    config.evaluate.draws = "ours"  # of RetFail's galleries, or released: row by row those of the released evaluator
    config.evaluate.idzsc_prompt = "a photo of {name}"
    config.evaluate.bootstrap = 1_000  # resamples of the identities, for the intervals

    config.report = ConfigDict()
    config.report.people = 6  # personas whose portraits are shown
    config.lock()
    config.unlearn.methods.unlock()
    return config


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads a config file, applies overrides ``"train.epochs=3"``, and checks it.

    An override with a group of fields, ``"unlearn.methods={}"``, replaces the whole group.

    Raises InputError for a missing file, a file that fails, an unknown field, a wrong type or a value out of range, naming
    it.
    """
    path = local_path(path, "--config")
    if path.is_dir():
        raise InputError("is a directory; name a config in it, such as configs/mini.py", path)
    if not path.is_file():
        raise InputError("no such config file; configs/mini.py is the one to start from", path)
    try:
        with _as_a_script(path):
            namespace = runpy.run_path(str(path))
            get_config = namespace.get("get_config")
            if not callable(get_config):
                raise InputError("it has no function get_config() that returns the config", path)
            _check_takes_nothing(get_config, path)
            config = get_config()
        values = flatten(config.to_dict()) if isinstance(config, ConfigDict) else {}
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the file is a person's program: anything can go wrong in it
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", "?")
        raise InputError(f"{type(error).__name__}: {str(error).strip(chr(34))}", f"{path} line {line}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"get_config() returned a {type(config).__name__}, not an ml_collections ConfigDict", path)
    schema = {field: value for field, value in flatten(base_config().to_dict()).items() if field != _METHODS}
    values |= _check_fields(values, schema, str(path))
    for override in overrides:
        field, separator, text = override.partition("=")
        where = safe_text(f"--config.{override}")
        if not separator:
            raise InputError("an override is --config.FIELD=VALUE", where)
        if not all(field.split(".")):
            raise InputError("names no field; an override is --config.FIELD=VALUE", where)
        value = _parse(text, schema.get(field))
        fields = flatten({field: value})
        fields |= _check_fields(fields, schema, where)
        values = {name: kept for name, kept in values.items() if not _nested(name, field)} | fields
    return _build({**schema, **values})


def section(config: ConfigDict, *names: str) -> dict[str, Any]:
    """Returns some top-level fields as plain JSON values."""
    return {name: _plain(config[name]) for name in names}


def identity_section(config: ConfigDict, *names: str) -> dict[str, Any]:
    """:func:`section` without the fields that change only how something is computed: what makes a run the same run."""
    parts = section(config, *names)
    for field in _HOW:
        group, _, name = field.partition(".")
        if group in parts:
            parts[group].pop(name, None) if name else parts.pop(group)
    return parts


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the whole config as plain JSON values."""
    return _plain(config)


def from_json(values: Mapping[str, Any]) -> ConfigDict:
    """Returns the config that :func:`to_json` was called with, for another process of a run."""
    return _build(flatten(values))


def _plain(value: Any) -> Any:
    if isinstance(value, ConfigDict | Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _nested(one: str, other: str) -> bool:
    """Returns whether one field is the other or contains it, either way round."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


@contextlib.contextmanager
def _as_a_script(path: Path) -> Iterator[None]:
    """Runs the block as ``python FILE`` would: a config may import modules beside it. What it prints goes to stderr.

    These modules are unloaded afterwards, so that a config elsewhere may import others of the same names.
    """
    beside = str(path.resolve().parent)
    modules, arguments = set(sys.modules), sys.argv
    sys.path.insert(0, beside)
    sys.argv = [str(path)]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.argv = arguments
        with contextlib.suppress(ValueError):
            sys.path.remove(beside)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == Path(beside) and not name.startswith("configs"):
                del sys.modules[name]


def _check_takes_nothing(get_config: Callable[..., Any], path: Path) -> None:
    try:
        inspect.signature(get_config).bind()
    except TypeError as error:
        raise InputError(f"get_config() has to take no arguments ({error})", path) from None
    except ValueError:  # something callable without a signature
        pass


def _check_fields(values: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks fields, and returns new values for some (paths are expanded). Raises InputError."""
    replaced = {}
    for field, value in values.items():
        if f"{field}.".startswith(f"{_METHODS}."):
            if field.count(".") <= _METHODS.count(".") + 1 and not isinstance(value, Mapping):
                one = field if field != _METHODS else f"{_METHODS}.NAME"
                message = f"field {field!r} is {value!r}, but has to be a group of fields, such as {one}.epochs=3"
                raise InputError(message, where)
            continue  # the fields of each method are checked by the method
        if field not in schema:
            raise InputError(_unknown(field, schema), where)
        _check_type(field, value, schema[field], where)
        limits = _LIMITS.get(field)
        if limits is not None and not limits.allow(value):
            raise InputError(f"field {field!r} is {value!r}, but has to be {limits}", where)
        if field in _CHOICES:
            _check_choices(field, value, where)
        if field in _PATHS and (value or field not in _MAY_BE_EMPTY):
            try:
                replaced[field] = str(_PATHS[field](value, f"field {field!r}"))
            except InputError as error:
                raise InputError(str(error), where) from None
        elif isinstance(value, str) and value != safe_text(value, limit=None):
            raise InputError(f"field {field!r} is {value!r}; control characters and half characters are no text", where)
    return replaced


def _unknown(field: str, schema: Mapping[str, Any]) -> str:
    """Says what is wrong with the name of a field, and which one may have been meant."""
    known = (*schema, f"{_METHODS}.METHOD.epochs")
    inside = [name.removeprefix(f"{field}.") for name in known if name.startswith(f"{field}.")]
    if inside:
        return f"{field!r} is a group of fields; set one of them with --config.{field}.FIELD=VALUE: {', '.join(inside)}"
    around = next((name for name in schema if field.startswith(f"{name}.")), None)
    if around is not None:
        kind = type(schema[around]).__name__
        return f"{around!r} is a field (a {kind}), not a group of fields; set it with --config.{around}=VALUE"
    hint = did_you_mean(field, schema)
    return f"no field {field!r} in the config" + (f"; {hint}" if hint else "")


def _check_type(field: str, value: Any, default: Any, where: str) -> None:
    right = type(default)
    fits = isinstance(value, right) and isinstance(value, bool) == isinstance(default, bool)
    fits = fits or (right is float and type(value) is int) or (right is tuple and isinstance(value, list))
    if not fits:
        how = f", written {_written(_CHOICES.get(field, default))}" if right is tuple else ""
        raise InputError(
            f"field {field!r} is {value!r} ({type(value).__name__}), but has to be a {right.__name__}{how}", where
        )
    if right is float and not abs(value) <= sys.float_info.max:  # NaN is not, nor a whole number of 400 digits
        raise InputError(f"field {field!r} is {value!r}, but has to be a finite number", where)


def _check_choices(field: str, value: Sequence[Any], where: str) -> None:
    choices = _CHOICES[field]
    wrong = [item for item in value if not isinstance(item, str) or item not in choices]
    if wrong or not value or len(set(value)) < len(value):
        problem = f"holds {wrong[0]!r}" if wrong else "is empty" if not value else f"is {value!r}, with a name twice"
        possible = " and ".join(map(repr, choices))
        raise InputError(f"field {field!r} {problem}; {possible} are possible, written {_written(choices)}", where)


def _written(choices: Sequence[str]) -> str:
    """Returns how a tuple is written, whole and with a single element."""
    return f'"{tuple(choices)!r}", or "({choices[0]!r},)" with its comma for one alone'


def _parse(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that literal_eval may raise
        return text


def _build(values: Mapping[str, Any]) -> ConfigDict:
    config = base_config()
    with config.unlocked():
        for field, value in values.items():
            node = config
            *parents, leaf = field.split(".")
            for parent in parents:
                if parent not in node:
                    node[parent] = ConfigDict()
                node = node[parent]
            if isinstance(value, Mapping):  # an empty one: a method that runs with its defaults
                node[leaf] = node[leaf] if leaf in node else ConfigDict()
            else:
                # ml_collections makes a float of an int, and a tuple of a list, where the default is one.
                node[leaf] = value
    return config
