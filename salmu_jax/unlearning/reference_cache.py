"""Encodes the rows of a method's streams with the start model once, so that no step has to.

The pairs, the further captions and the pools of a run do not change, nor does the start model. So its embeddings of them are
made before the first step, by the encoder of the evaluation, and every batch carries those of its rows (``Pairs.known``);
``reference.py`` says how a step uses them. They differ from what the step would compute in the last bits alone. A run that
resumes makes the same ones again. On several hosts, each has all of them, and looks up its own share of a batch.

Of sampled captions (``sampled.py``), all wordings of a row are encoded. The 33 wordings of 30,468 pairs, two captions each to
look up, that ``redirect`` has take 3.8 GiB at D = 512, and some three times that while they are made.

What a method asks its reference for is found by tracing its step once; nothing else is encoded. Randomly cropped images
(``hyper.augment``) differ in every pass, and are not cached.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from salmu_jax.evaluation.encode import WORTH_A_PROGRAM, Encoder, default_rows
from salmu_jax.models.clip import Clip
from salmu_jax.runtime import console, distributed
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.flops import forward_flops_per_image, forward_flops_per_text
from salmu_jax.unlearning.reference import IMAGES, OTHERS, Asked, MakeReference, arrays_of, recording
from salmu_jax.unlearning.step import Start, Step, UnlearningState
from salmu_jax.unlearning.stream_batches import Batches
from salmu_jax.unlearning.streams import Drawn

MOST_BYTES = 2**31  # of embeddings on a host, with "auto"

Tables = dict[str, dict[str, np.ndarray]]  # by stream and array: float32 [N, D] or [N, K, D]


class _Candidate(NamedTuple):
    """An array of a stream that could be encoded once."""

    asked: Asked
    total: int  # rows of the stream
    rows: int  # to encode: all of them, or those that the steps draw if they are fewer
    copies: int  # captions of a row, those included that a step is not given
    saved: float  # FLOPs, over the run
    bytes: int  # of the embeddings


def remember(
    mode: str,
    make_step: Callable[[MakeReference], Step],
    state: UnlearningState,
    start: Start,
    clip: Clip,
    batches: Batches,
    total_steps: int,
    mesh: Mesh,
    label: str,
) -> Tables:
    """Returns the start model's embeddings of the fixed rows that a method asks it for, by stream and array.

    All processes have to call it, and all get all rows.

    Args:
      mode: ``off``: none; ``on``: all; ``auto``: those that cost less than they save, compiling the encoder included, as
        many as fit into :data:`MOST_BYTES`.
      make_step: makes the step of the method, given the maker of its reference.
      state, start: what the first step gets, besides its batch.
      batches: what draws the rows.
      total_steps: of the run.

    Raises InputError for embeddings that are not finite.
    """
    if mode == "off" or not total_steps:
        return {}
    streams = {name: batches.of_stream(name) for name in batches.of_steps}
    first = {name: next(iterator) for name, iterator in streams.items()}
    batch = {name: drawn.pairs for name, drawn in first.items()}
    found = _candidates(first, clip, batches, total_steps)
    if mode == "auto" and not _pays(found):  # whatever is asked for
        return {}
    with mesh_lib.use(mesh):
        asked = _asked(make_step, state, batch, start)
    found = [one for one in found if one.asked in asked]
    if mode == "auto":
        found = _worth_it(found)
    if not found:
        return {}
    drawn = {name: itertools.chain([first[name]], iterator) for name, iterator in streams.items()}
    tables = _encoded(found, drawn, clip, start.params, mesh)
    if distributed.is_main():
        images = sum(one.rows for one in found if one.asked.array == IMAGES)
        captions = sum(one.rows * one.copies for one in found if one.asked.array != IMAGES)
        console.say(f"{label}: encoded {images:,} images and {captions:,} captions with the start model, once")
    return tables


def _candidates(first: Mapping[str, Drawn], clip: Clip, batches: Batches, total_steps: int) -> list[_Candidate]:
    """Returns all arrays of the first batch that are the same in every pass."""
    found = []
    for stream, of_stream in first.items():
        total, drawn = batches.rows[stream], batches.sizes[stream] * total_steps
        rows, steps_have = min(total, drawn), arrays_of(of_stream.pairs)
        for name, array in _whole(of_stream).items():
            if name == IMAGES and batches.inputs.augment:
                continue
            copies, of_step = (1 if name == IMAGES else math.prod(a.shape[1:-1]) for a in (array, steps_have[name]))
            flops = forward_flops_per_image if name == IMAGES else forward_flops_per_text
            saved = (drawn * of_step - rows * copies) * flops(clip.config)
            size = total * copies * clip.config.embed_dim * 4
            found.append(_Candidate(Asked(stream, name), total, rows, copies, saved, size))
    return found


def _whole(drawn: Drawn) -> dict[str, Any]:
    """Returns what an encoder takes of these rows, by name: of sampled captions all that there are, int32 [B, K, T]."""
    sampled = {OTHERS + name: choice.tokens for name, choice in drawn.choices.items()}
    return {**arrays_of(drawn.pairs), **sampled}


def _pays(found: Iterable[_Candidate]) -> bool:
    """Returns whether these save more than compiling an encoder costs."""
    return sum(max(one.saved, 0) for one in found) > WORTH_A_PROGRAM


def _worth_it(found: Iterable[_Candidate]) -> list[_Candidate]:
    """Returns those that save most and fit into memory; none if together they do not pay."""
    chosen: list[_Candidate] = []
    for one in sorted(found, key=lambda one: one.saved, reverse=True):
        if one.saved > 0 and one.bytes + sum(other.bytes for other in chosen) <= MOST_BYTES:
            chosen.append(one)
    return chosen if _pays(chosen) else []


def _asked(
    make_step: Callable[[MakeReference], Step], state: UnlearningState, batch: Mapping[str, Any], start: Start
) -> set[Asked]:
    """Returns which arrays of ``batch`` the step encodes with its reference; nothing is computed."""
    asked: set[Asked] = set()
    jax.eval_shape(make_step(recording(asked)), state, batch, start)
    return asked


def _encoded(
    found: list[_Candidate], drawn: Mapping[str, Iterator[Drawn]], clip: Clip, params: Any, mesh: Mesh
) -> Tables:
    """Draws each stream until every row was there, and encodes it: images as they come, captions all together."""
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    most = -(-max(one.rows for one in found) // shares)
    rows = min(default_rows(clip), 1 << (most - 1).bit_length())  # few rows are not padded to many
    encoder = Encoder(clip, params, rows, mesh, gather=True)
    tables: Tables = {}
    captions: list[tuple[_Candidate, np.ndarray, np.ndarray]] = []  # with the positions of rows, and their tokens
    for stream in sorted({one.asked.stream for one in found}):
        wanted = [one for one in found if one.asked.stream == stream]
        tables[stream] = {}
        parts: dict[str, list[np.ndarray]] = {one.asked.array: [] for one in wanted}
        positions = []
        for arrays, places in _groups(drawn[stream], wanted[0].rows, rows * shares):
            positions.append(places)
            for name, some in parts.items():
                some.append(encoder.all("image", arrays[name]) if name == IMAGES else arrays[name])
        places = np.concatenate(positions)
        for one in wanted:
            values = np.concatenate(parts[one.asked.array])
            if one.asked.array == IMAGES:
                tables[stream][IMAGES] = _scattered(values, places, one.total)
            else:
                captions.append((one, places, values))
    embeddings = _of_captions([tokens for _, _, tokens in captions], encoder)
    for (one, places, _), values in zip(captions, embeddings, strict=True):
        tables[one.asked.stream][one.asked.array] = _scattered(values, places, one.total)
    return tables


def _scattered(values: np.ndarray, places: np.ndarray, total: int) -> np.ndarray:
    """Returns ``values`` in the order of their source; rows that no step draws are 0."""
    table = np.zeros((total, *values.shape[1:]), values.dtype)
    table[places] = values
    return table


def _groups(drawn: Iterator[Drawn], rows: int, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yields the first ``rows`` rows, about ``size`` at a time: their arrays, and their positions."""
    left = rows
    while left > 0:
        group: list[Drawn] = []
        while sum(len(some.places) for some in group) < min(size, left):
            group.append(next(drawn))
        arrays = [_whole(some) for some in group]
        places = np.concatenate([some.places for some in group])[:left]
        yield {name: np.concatenate([some[name] for some in arrays])[:left] for name in arrays[0]}, places
        left -= len(places)


def _of_captions(tokens: list[np.ndarray], encoder: Encoder) -> list[np.ndarray]:
    """Returns the embeddings of arrays of captions, int32 [N, T] or [N, K, T] each: float32 [N, D] or [N, K, D] each.

    They are encoded together, so that there are few lengths to compile for.
    """
    if not tokens:
        return []
    flat = [array.reshape(-1, array.shape[-1]) for array in tokens]
    whole = encoder.all_tokens(np.concatenate(flat))
    parts = np.split(whole, np.cumsum([len(array) for array in flat])[:-1])
    return [part.reshape(*array.shape[:-1], -1) for part, array in zip(parts, tokens, strict=True)]
