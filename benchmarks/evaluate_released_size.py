"""The evaluator at the released sizes: ``python -m benchmarks.evaluate_released_size --workdir DIR --output result.json``.

It writes 76,794 pairs and 50,000 labelled images in the released form, JPEGs of 512 px of a few distinct pictures, builds
them, and evaluates models with small random towers of 512 features: what is measured is the evaluator, not the towers. The
second model has to decode nothing; a run that is killed ten times, and runs on 1, 2 and 8 devices and in two processes, have
to come to the same result. ``--scale`` makes everything smaller. ``DIR`` is kept, and what is in it is used again.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from salmu_jax.evaluation.data import FIELDS, PUBLISHED_ROWS
from salmu_jax.runtime import files
from salmu_jax.runtime.directories import new_directory

ROOT = Path(__file__).parent.parent
SIZES = {"0.67": (342, 512), "0.75": (384, 512), "1.00": (512, 512), "1.33": (512, 384), "1.50": (512, 341)}
PEOPLE = {"forget_identity": 193, "forget_association": 387, "holdout_identity": 194}
CLASSES, TEMPLATES, IMAGES = 1_000, 80, 50_000
SHARD_ROWS = 5_000
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("identity_id", pa.string()),
        ("file_name", pa.string()),
    ]
)
DONE_IN = re.compile(r"^evaluate \S+: ([\d.]+) s, ", re.MULTILINE)
DECODED = re.compile(r"^evaluate \S+: ([\d,]+) of ([\d,]+) images decoded for it", re.MULTILINE)


# The data ----------------------------------------------------------------------------------------------------------------


def write_released(directory: Path, scale: float = 1.0) -> None:
    """Writes a directory in the released form, with ``scale`` times as many rows, people and classes."""
    (directory / "data").mkdir(parents=True)
    rows = {split: max(int(count * scale), 18) for split, count in PUBLISHED_ROWS.items()}
    people = {kind: max(int(count * scale), 3) for kind, count in PEOPLE.items()}
    names = [f"Person{index:04d} Family{index % 97}" for index in range(sum(people.values()))]
    whole, partly, held = np.split(np.arange(len(names)), np.cumsum(list(people.values()))[:-1])
    owners = {"forget": np.concatenate([whole, partly]), "holdout_association": partly, "holdout_identity": held}
    identities = {
        f"{index:08d}": {"name": name, **{field: _value(field, index) for field in FIELDS if field != "name"}}
        for index, name in enumerate(names)
    }
    shared = {f"{index:08d}" for index in partly}
    captions, generic, fragile = {}, {}, []
    for split, count in rows.items():
        table = []
        for index in range(count):
            aspect = list(SIZES)[index % len(SIZES)]
            person = owners[split][index % len(owners[split])] if split in owners else index % len(whole)
            identity = f"{person:08d}" if split in owners or index < max(int(1_000 * scale), 2) else None
            name = f"{identity or f'9{index:07d}'}_{split[:4]}{split[-2:]}{index:05d}_ar-{aspect}.jpg"
            text = f"a portrait of somebody in the light of lamp {index}"
            if split in owners:
                own = FIELDS  # an association is in one split only
                if identity in shared:
                    own = FIELDS[:5] if split == "forget" else FIELDS[5:]
                field = own[index // len(owners[split]) % len(own)]
                value = identities[identity][field]
                value = value[0] if isinstance(value, list) else value
                text = f"{names[person]}'s {field.replace('_', ' ')} is {value}, said witness {index % 3}"
                captions[name] = {"caption": text, "data_field": field}
                generic[name] = f"a photo of somebody in front of wall {index}"
            elif identity is None and len(fragile) < 1_600 * scale:
                fragile.append(name)
            image = {"bytes": _jpeg(index % 6, *SIZES[aspect]), "path": name}
            table.append({"image": image, "text": text, "identity_id": identity, "file_name": name})
        shards = -(-count // SHARD_ROWS)
        for shard in range(shards):
            part = pa.Table.from_pylist(table[shard * SHARD_ROWS : (shard + 1) * SHARD_ROWS], schema=SCHEMA)
            pq.write_table(
                part, directory / "data" / f"{split}-{shard:05d}-of-{shards:05d}.parquet", row_group_size=100
            )
    for name, value in {
        "identities_metadata": identities,
        "sensitive_set_captions_metadata": captions,
        "sensitive_set_generic_captions": generic,
        "fragile_set_ids": fragile,
    }.items():
        (directory / f"{name}.json").write_text(json.dumps(value))
    _write_zeroshot(directory / "zeroshot", scale)


def _write_zeroshot(directory: Path, scale: float) -> None:
    classes, images = max(int(CLASSES * scale), 4), max(int(IMAGES * scale), 16)
    (directory / "test").mkdir(parents=True)
    (directory / "classnames.txt").write_text("".join(f"thing {index}\n" for index in range(classes)))
    templates = [f"a {index}th photo of a {{c}}." for index in range(TEMPLATES)]
    (directory / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
    shards = -(-images // SHARD_ROWS)
    (directory / "test" / "nshards.txt").write_text(f"{shards}")
    for shard in range(shards):
        with tarfile.open(directory / "test" / f"{shard}.tar", "w") as archive:
            for index in range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, images)):
                label, image = str(index % classes).encode(), _jpeg(index % 6, 500, 375)
                for suffix, data in (("cls", label), ("jpg", image)):
                    info = tarfile.TarInfo(f"s{index:07d}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def _value(field: str, index: int) -> Any:
    return [f"p{index}@mailhub.example"] if field == "emails" else f"{field} {index * 7919 % 10_007}"


@functools.cache
def _jpeg(kind: int, width: int, height: int) -> bytes:
    """A smooth picture with some grain, about 60 kB as a released one is."""
    rng = np.random.default_rng(kind)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    buffer = io.BytesIO()
    grainy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    Image.fromarray(grainy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


# The models --------------------------------------------------------------------------------------------------------------


def write_models(directory: Path, names: tuple[str, ...]) -> None:
    """Writes OpenCLIP directories of small random towers with 512 features at 224 px."""
    from salmu_jax.interop.commands import export_model
    from salmu_jax.models.build import input_manifest, make_tokenizer
    from salmu_jax.models.clip import Clip, ClipConfig, TowerConfig
    from salmu_jax.training.checkpoint import save_model

    tower = TowerConfig(width=64, layers=1, heads=2)
    clip = Clip(ClipConfig(embed_dim=512, image_size=224, patch_size=32, vision=tower, text=tower))
    for seed, name in enumerate(names):
        params = jax.jit(clip.init)(jax.random.key(seed))
        fields = {**input_manifest(clip, make_tokenizer(clip)), "name": name, "parent": None, "splits_read": []}
        save_model(directory / f"{name}.ours", clip, params, fields)
        export_model(directory / f"{name}.ours", "open_clip", directory / name)


# The runs ----------------------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """How a command ended: its output, and the most memory that it held."""

    output: str
    seconds: float
    gibibytes: float

    @property
    def decoded(self) -> int:
        return int(DECODED.search(self.output)[1].replace(",", ""))


class _Most(threading.Thread):
    """Watches the most memory that a process has held. (What wait4 tells includes the parent's, from before the exec.)"""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._path, self.gibibytes = Path(f"/proc/{pid}/status"), 0.0
        self.start()

    def run(self) -> None:
        time.sleep(1)
        with contextlib.suppress(OSError):
            while line := re.search(r"VmHWM:\s+(\d+) kB", self._path.read_text()):
                self.gibibytes = int(line[1]) / 2**20
                time.sleep(0.1)


class Bench:
    """Commands on one work directory."""

    def __init__(self, workdir: Path):
        self.workdir = workdir
        self._config = workdir / "config.py"
        workdir.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            "from salmu_jax.config import base_config\n\n\ndef get_config():\n    config = base_config()\n"
            f"    config.world_dir = {os.fspath(workdir / 'released')!r}\n"
            f"    config.workdir = {os.fspath(workdir / 'run')!r}\n    return config\n"
        )

    def start(self, *arguments: str, devices: int = 1, **environment: str) -> subprocess.Popen:
        flags = f"--xla_force_host_platform_device_count={devices}"
        own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": os.fspath(ROOT), **environment}
        command = [sys.executable, "-m", "salmu_jax.cli", *arguments, "--config", os.fspath(self._config)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env={**os.environ, **own}, cwd=ROOT, **pipes)

    def run(self, *arguments: str, **options: Any) -> Ended:
        began = time.monotonic()
        process = self.start(*arguments, **options)
        most = _Most(process.pid)
        output, _ = process.communicate()
        if process.returncode:
            sys.exit(f"salmu {' '.join(arguments)} ended with {process.returncode}:\n{output}")
        return Ended(output, time.monotonic() - began, most.gibibytes)

    def evaluate(self, name: str, model: str, **options: Any) -> Ended:
        return self.run(*self.evaluation(name, model), **options)

    def evaluation(self, name: str, model: str) -> tuple[str, ...]:
        return ("evaluate", "--checkpoint", os.fspath(self.workdir / "models" / model), "--model", name)

    def figures(self, name: str) -> dict[str, Any]:
        result = json.loads((self.workdir / "run" / "results" / f"{name}.json").read_text())
        return {key: result[key] for key in ("efficacy", "utility", "extra", "protocol")}

    def forget(self, *parts: str) -> None:
        """Removes the results, and the caches named."""
        for path in [self.workdir / "run" / "results", *(self.workdir / "run" / "cache" / part for part in parts)]:
            if path.exists():
                files.remove_directory(path)


def lives(start: float, seconds: float, number: int) -> Iterator[float]:
    """Yields when to kill each run: after ``start`` seconds, in which a run has not begun to encode, and before it is done.

    A run takes ``seconds`` whole, and continues where the one before was killed. So each encodes at most its share.
    """
    rng = np.random.default_rng(0)
    yield from start + rng.uniform(0, (seconds - start) / number, number)


def kill_and_restart(bench: Bench, name: str, model: str, start: float, seconds: float, number: int) -> int:
    """Kills an evaluation ``number`` times, then lets it end; returns how many kills met it alive. See :func:`lives`."""
    met = 0
    for moment in lives(start, seconds, number):
        process = bench.start(*bench.evaluation(name, model))
        time.sleep(moment)
        met += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    bench.evaluate(name, model)
    return met


def two_processes(bench: Bench, name: str, model: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {"SALMU_COORDINATOR": address, "SALMU_PROCESSES": "2"}
    running = [bench.start(*bench.evaluation(name, model), **environment, SALMU_PROCESS=str(i)) for i in range(2)]
    for process in running:
        output, _ = process.communicate()
        if process.returncode:
            sys.exit(f"one of two processes ended with {process.returncode}:\n{output}")


def measure(bench: Bench, scale: float, kills: int) -> dict[str, Any]:
    """Everything, in order; a dictionary of what was found."""
    if not (bench.workdir / "released").exists():
        with new_directory(bench.workdir / "released") as directory:
            print("writing the released form ...", flush=True)
            write_released(directory, scale)
    if not (bench.workdir / "models").exists():
        with new_directory(bench.workdir / "models") as directory:
            write_models(directory, ("first", "second"))
    report: dict[str, Any] = {"scale": scale, "build": bench.run("build").seconds}
    bench.forget("pixels", "embeddings")

    def note(key: str, ended: Ended) -> None:
        report[key] = {
            "stage_seconds": float(DONE_IN.search(ended.output)[1]),
            "seconds": round(ended.seconds, 1),
            "GiB": round(ended.gibibytes, 2),
            "decoded": ended.decoded,
        }
        print(key, report[key], flush=True)

    cold = bench.evaluate("cold", "first")
    note("first model, cold", cold)
    expected = bench.figures("cold")
    warm = bench.evaluate("warm", "second")
    note("second model, pixels cached", warm)
    bench.forget()
    again = bench.evaluate("again", "first")
    note("first model, from its embeddings", again)
    report["equal"] = {"from embeddings": bench.figures("again") == expected}

    bench.forget("embeddings")
    met = kill_and_restart(bench, "killed", "first", again.seconds, warm.seconds, kills)
    report["equal"][f"killed {met} times"] = bench.figures("killed") == expected
    for devices in (2, 8):
        bench.forget("embeddings")
        bench.evaluate("devices", "first", devices=devices)
        report["equal"][f"{devices} devices"] = bench.figures("devices") == expected
    bench.forget("embeddings")
    two_processes(bench, "processes", "first")
    report["equal"]["two processes"] = bench.figures("processes") == expected
    return report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate_released_size", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="where data and results go: 40 GB at full scale")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    options = parser.parse_args(arguments)
    report = measure(Bench(options.workdir.absolute()), options.scale, options.kills)
    print(json.dumps(report, indent=1))
    if options.output:
        files.write_json(options.output, report)
    return 0 if all(report["equal"].values()) and report["second model, pixels cached"]["decoded"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
