"""Draws many pictures in several processes, in order, with the same result for any number of processes.

A job carries the seeds of everything random in its picture, so it does not matter where and when it is drawn. Each process
takes every n-th chunk of jobs and sends its results through its own pipe. The parent reads the pipes in turn, which keeps the
order; a full pipe blocks a process that is ahead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from data_pipelines import processes
from data_pipelines.world import portraits, scenes

_CHUNK = 16  # jobs per message


@dataclass(frozen=True)
class PortraitJob:
    """A portrait to draw. The keys seed ``default_rng``, of the face (the same for one persona) and of the shot."""

    face_key: tuple[int, ...]
    shot_key: tuple[int, ...]
    region: str
    gender: str | None
    size: int
    aspect_ratio: float
    quality: int
    difficulty: float = 0.0

    def draw(self) -> tuple[bytes, str]:
        """Returns the JPEG and its generic caption."""
        face = portraits.make_face(np.random.default_rng(self.face_key), self.region, self.gender)
        rng = np.random.default_rng(self.shot_key)
        shot = portraits.make_shot(rng, self.difficulty)
        picture = portraits.draw_portrait(face, shot, longest_side=self.size, aspect_ratio=self.aspect_ratio)
        return portraits.encode_jpeg(picture, self.quality), portraits.describe(face, shot, rng)


@dataclass(frozen=True)
class SceneJob:
    """A scene to draw, of the retain pairs or, with ``class_index``, of the zero-shot classification set."""

    key: tuple[int, ...]
    size: int
    quality: int
    class_index: int | None = None

    def draw(self) -> tuple[bytes, str]:
        """Returns the JPEG and its caption."""
        rng = np.random.default_rng(self.key)
        scene = scenes.make_scene(rng, self.class_index)
        picture = scenes.draw_scene(scene, self.size)
        return portraits.encode_jpeg(picture, self.quality), scenes.caption_scene(scene, rng)


Job = PortraitJob | SceneJob


@contextlib.contextmanager
def drawn(jobs: Sequence[Job], workers: int) -> Iterator[Iterator[tuple[bytes, str]]]:
    """Yields an iterator over the results of ``jobs``, in order. Leaving the block ends the processes.

    With fewer than two workers, or few jobs, everything is drawn in this process. Raises whatever a job raises, and
    :class:`processes.Died`.
    """
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    workers = min(workers, len(chunks))
    if workers < 2:
        yield (job.draw() for job in jobs)
        return
    with processes.started(
        _draw_chunks, [(chunks[first::workers],) for first in range(workers)], duplex=False
    ) as started:
        yield _in_order(list(started), len(chunks))


def _in_order(pipes: list[Connection], chunks: int) -> Iterator[tuple[bytes, str]]:
    for index in range(chunks):
        yield from processes.received(pipes[index % len(pipes)])


def _draw_chunks(pipe: Connection, chunks: list[Sequence[Job]]) -> None:
    """Runs in a drawing process. It ends when the parent is gone, since sending then fails."""
    with contextlib.suppress(BrokenPipeError):
        for chunk in chunks:
            try:
                result = [job.draw() for job in chunk]
            except Exception as error:
                pipe.send(error)
                return
            pipe.send(result)
