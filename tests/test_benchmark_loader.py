"""The comparison of loaders at tiny sizes: the data that it makes, our side, the profile, and what it reports."""

from __future__ import annotations

import json

import pytest

from benchmarks import decoders, inputs, loader, loader_data, loader_profile, loader_sides
from benchmarks.loader_sides import LoaderSpec
from salmu_jax.models import fast_jpeg
from salmu_jax.models.tokenizer import ClipTokenizer


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    directory = tmp_path_factory.mktemp("loader")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader_data, "PICTURES", 2)
        patch.setattr(loader_data, "ProcessPoolExecutor", _Serial)
        patch.setattr(loader_data, "SIDE", 96)
        loader_data.make(directory, pairs=16, tars=2)
    return LoaderSpec(str(directory), pairs=16, tars=2, batch=4, workers=0, cores=1, image_size=32)


class _Serial:
    """A pool whose processes would draw without what is patched here."""

    def __init__(self, workers):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    map = staticmethod(map)


def test_our_side_reads_every_pair_once_an_epoch(spec):
    captions = [caption for seed in range(2) for caption in inputs.captions(8, seed)]
    epoch = loader_sides.ours(spec)
    for index in range(2):
        found = loader_sides.run(epoch, spec, index)
        assert found["value"] == [16, int(ClipTokenizer()(captions).sum())]
        assert found["seconds"] > 0
        assert abs(found["pixels"]) < 2


def test_the_profile_finds_all_parts(spec, monkeypatch):
    monkeypatch.setattr(loader_profile, "BATCHES", 2)
    found = loader_profile.profile(spec)
    assert found["parts"].keys() == {*loader_profile.PARTS, "the rest"}
    if fast_jpeg.AVAILABLE:
        assert all(milliseconds > 0 for milliseconds in found["parts"].values())
    assert len(loader_profile.lines(found)) == 1 + len(found["parts"])


@pytest.mark.parametrize(("theirs", "code"), [([16, 7], 0), ([16, 8], 1), ([15, 7], 1)])
def test_the_report(spec, monkeypatch, tmp_path, capsys, theirs, code):
    class Side:
        def __init__(self, name, spec):
            self.name, self.facts = name, {"versions": {}}

        def run(self, index):
            seconds, value = (1.0, [16, 7]) if self.name == "ours" else (2.0, theirs)
            return {"seconds": seconds, "cpu_seconds": 3.0, "value": value, "pixels": 0.0}

        def close(self):
            pass

    monkeypatch.setattr(loader, "Side", Side)
    output = tmp_path / "result.json"
    options = ["--workdir", spec.directory, "--pairs", "16", "--tars", "2", "--batch", "4", "--rounds", "3"]
    assert loader.main([*options, "--output", str(output)]) == code
    report = json.loads(output.read_text())
    assert report["ratio"] == {"first_quartile": 2.0, "median": 2.0, "third_quartile": 2.0}
    assert len(report["ours"]["seconds"]) == 3
    assert bool(report["problems"]) == bool(code)
    assert "ratio 2.00" in capsys.readouterr().out


def test_batches_that_open_clip_would_repeat_are_refused(capsys):
    with pytest.raises(SystemExit):
        loader.parse(["--workdir", "x", "--batch", "99"])
    assert "whole batches" in capsys.readouterr().err


def test_decoders_are_compared(monkeypatch, capsys):
    monkeypatch.setattr(loader_data, "SIDE", 64)
    monkeypatch.setattr(loader_data, "PICTURES", 2)
    loader_data._portrait.cache_clear()
    assert decoders.main(["--images", "2", "--rounds", "1", "--size", "32"]) == 0
    loader_data._portrait.cache_clear()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("PIL ")
    assert lines[1].endswith("0, 0.00%")
