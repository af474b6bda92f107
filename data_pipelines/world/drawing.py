"""Drawing many pictures on several processes: light to import, in order, and the same on any number of processes.

A picture's job carries the seeds of everything random in it, so where and when it is drawn does not matter. Processes
are spawned (forking a parent that runs JAX's threads may hang), take every n-th chunk of jobs and send the results
through a pipe each, which the parent reads in turn: order is kept, and a full pipe holds back a process that is ahead.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from data_pipelines.world import portraits, scenes
from salmu_jax.runtime import interrupts

_CHUNK = 16  # jobs a message


@dataclass(frozen=True)
class PortraitJob:
    """One portrait. The keys seed ``default_rng``: of the face (one for all portraits of a persona) and the shot."""

    face_key: tuple[int, ...]
    shot_key: tuple[int, ...]
    region: str
    gender: str | None
    size: int
    aspect_ratio: float
    quality: int
    difficulty: float = 0.0

    def draw(self) -> tuple[bytes, str]:
        """The JPEG and its generic caption."""
        face = portraits.make_face(np.random.default_rng(self.face_key), self.region, self.gender)
        rng = np.random.default_rng(self.shot_key)
        shot = portraits.make_shot(rng, self.difficulty)
        picture = portraits.draw_portrait(face, shot, longest_side=self.size, aspect_ratio=self.aspect_ratio)
        return portraits.encode_jpeg(picture, self.quality), portraits.describe(face, shot, rng)


@dataclass(frozen=True)
class SceneJob:
    """One scene of the general retain base or, with ``class_index``, of the zero-shot classification set."""

    key: tuple[int, ...]
    size: int
    quality: int
    class_index: int | None = None

    def draw(self) -> tuple[bytes, str]:
        """The JPEG and its caption."""
        rng = np.random.default_rng(self.key)
        scene = scenes.make_scene(rng, self.class_index)
        picture = scenes.draw_scene(scene, self.size)
        return portraits.encode_jpeg(picture, self.quality), scenes.caption_scene(scene, rng)


Job = PortraitJob | SceneJob


@contextlib.contextmanager
def drawn(jobs: Sequence[Job], workers: int) -> Iterator[Iterator[tuple[bytes, str]]]:
    """Yields an iterator over the results of ``jobs``, in their order; leaving the block ends the processes.

    With fewer than two workers, or few jobs, everything is drawn in this process. Raises whatever a job raises, and
    RuntimeError if a process dies.
    """
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    workers = min(workers, len(chunks))
    if workers < 2:
        yield (job.draw() for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], []
    try:
        with interrupts.kept_from_children():
            for first in range(workers):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_draw_chunks, args=(theirs, chunks[first::workers]), daemon=True)
                process.start()
                theirs.close()  # so that the end of the process is the end of the pipe
                processes.append(process)
                pipes.append(ours)
        yield _in_order(pipes, len(chunks))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        for pipe in pipes:
            pipe.close()


def _in_order(pipes: list[Connection], chunks: int) -> Iterator[tuple[bytes, str]]:
    for index in range(chunks):
        try:
            result = pipes[index % len(pipes)].recv()
        except EOFError as error:
            raise RuntimeError("a drawing process ended before its work was done (out of memory?)") from error
        if isinstance(result, Exception):
            raise result
        yield from result


def _draw_chunks(pipe: Connection, chunks: list[Sequence[Job]]) -> None:
    """The body of a drawing process. It ends by itself when the parent is gone: sending then fails."""
    with contextlib.suppress(BrokenPipeError):
        for chunk in chunks:
            try:
                result = [job.draw() for job in chunk]
            except Exception as error:
                pipe.send(error)
                return
            pipe.send(result)
