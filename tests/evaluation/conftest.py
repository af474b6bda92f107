"""A tiny world of records and a tiny model with CLIP's interface."""

from __future__ import annotations

import types

import pytest
import tiny_world


@pytest.fixture(scope="session")
def tiny() -> types.SimpleNamespace:
    """All of ``tiny_world.py``, by name."""
    return types.SimpleNamespace(
        size=tiny_world.SIZE,
        clip=tiny_world.TinyClip,
        config=tiny_world.TinyConfig,
        tokenizer=tiny_world.TinyTokenizer,
        params=tiny_world.tiny_params,
        sources=tiny_world.tiny_sources,
        zeroshot=tiny_world.tiny_zeroshot,
        data=tiny_world.tiny_data,
        decode=tiny_world.decode,
        run=tiny_world.run,
        measure=tiny_world.measure,
        asked=tiny_world.asked,
    )


@pytest.fixture(scope="session")
def honest(tmp_path_factory):
    """The work directory of an honest run, for reading only."""
    return tiny_world.write_honest_run(tmp_path_factory.mktemp("honest"))
