"""Makes the data of the benchmark: a world of fictitious people, and the TFDS data sets of a world."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from salmu_jax import config as config_lib
from salmu_jax import full_world
from salmu_jax.chain import Chain, need
from salmu_jax.runtime import distributed, host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import code
from salmu_jax.runtime.workspace import Workspace, say


def generate(workspace: Workspace) -> None:
    """Makes the world, unless the config names one."""
    config = workspace.config
    if config.world_dir:
        say(f"generate: not needed, the config's world_dir is {workspace.world}")
        return
    if config.world.kind == "full":
        full_world.generate(workspace)
        return
    full_world.check_small(config)
    from data_pipelines.world.generate import GENERATOR_VERSION

    parameters = config_lib.section(config, "world")["world"]
    del parameters["kind"]  # a record of a world made before there were kinds still counts
    workers = min(parameters.pop("workers"), host.cpu_count())  # the world does not depend on their number
    fields = {"generator": GENERATOR_VERSION, "world": parameters, "code": code("generate")}
    with workspace.stage("generate", workspace.world, fields) as identity:
        if identity:
            distributed.from_main(lambda: _generate(workspace, workers, parameters))


def _generate(workspace: Workspace, workers: int, parameters: Mapping[str, Any]) -> None:
    from data_pipelines.world.generate import generate_world

    with _progress("generate", "pictures") as progress:
        world = generate_world(workspace.world, workers=workers, progress=progress, **parameters)
    counts = ", ".join(f"{count:,} {name}" for name, count in world["counts"]["subsets"].items())
    say(f"generate: {counts}")


def build(workspace: Workspace, chain: Chain, strict: bool = False) -> None:
    """Checks the world and converts it to TFDS data sets; ``strict`` also refuses harmless deviations."""
    need(workspace.world, "salmu generate", "or name a directory in the released layout as 'world_dir'")
    zeroshot = workspace.config.zeroshot_dir
    if zeroshot and not Path(zeroshot).is_dir():
        message = f"no such directory: {zeroshot}; name that of a zero-shot set, or none (--config.zeroshot_dir=)"
        raise InputError(f"{message} to use the world's own or go without GenKnow", "zeroshot_dir")

    retain = workspace.config.retain_dir
    distributed.from_main(lambda: _check_names(workspace))
    fields = {
        "world": chain.world(),
        **({"zeroshot": chain.foreign(Path(zeroshot))} if zeroshot else {}),
        **({"retain": distributed.from_main(lambda: _retain_digest(Path(retain)))} if retain else {}),
        **({"strict": True} if strict else {}),  # recheck what passed without it
        "code": code("build"),
    }
    inputs = [workspace.world, *(Path(given) for given in (zeroshot, retain) if given)]
    with workspace.stage("build", workspace.datasets, fields, inputs=inputs) as identity:
        if identity:
            distributed.from_main(lambda: _build(workspace, strict))


def _check_names(workspace: Workspace) -> None:
    """Refuses a directory whose names show that it is not a world or zero-shot set, before reading it for its digest."""
    from data_pipelines.layout import find_root, read_zeroshot

    find_root(workspace.world)
    if workspace.config.zeroshot_dir:
        read_zeroshot(workspace.config.zeroshot_dir)


def _retain_digest(directory: Path) -> str:
    from data_pipelines.retain.link import retain_digest

    return retain_digest(directory)


def _build(workspace: Workspace, strict: bool) -> None:
    from data_pipelines.builders import build_datasets

    summary = build_datasets(
        workspace.world,
        workspace.datasets,
        zeroshot_dir=workspace.config.zeroshot_dir or None,
        retain_dir=workspace.config.retain_dir or None,
        strict=strict,
        progress=lambda line: say(f"build: {line}"),
    )
    rows = {f"{name}/{split}": n for name, data in summary.items() for split, n in data["splits"].items()}
    counts = ", ".join(f"{count:,} {split}" for split, count in rows.items())
    say("; ".join([f"build: {counts}", *(f"let pass: {line}" for line in summary.oddities)]))


@contextlib.contextmanager
def _progress(label: str, unit: str) -> Iterator[Any]:
    """Yields a callback ``progress(done, total)`` that prints the progress of a stage."""
    from salmu_jax.runtime.progress import Progress

    bar: dict[str, Any] = {}

    def progress(done: int, total: int) -> None:
        if not bar:
            bar.update(line=Progress(label, total, unit=unit), done=0)
        bar["line"].update(done, done - bar["done"], {})
        bar["done"] = done

    yield progress
