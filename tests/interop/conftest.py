"""A small model with random weights."""

import pytest
from random_models import write_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """(directory, clip, params) of the architecture 'tiny'."""
    directory = tmp_path_factory.mktemp("interop") / "tiny"
    return directory, *write_model(directory, "tiny")
