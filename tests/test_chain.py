"""What the chain of stages makes of damaged manifests, without a run."""

from __future__ import annotations

import types

import pytest

from salmu_jax.chain import Chain
from salmu_jax.runtime.currency import Currency
from salmu_jax.runtime.errors import InputError


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"source": '])
def test_a_result_of_a_model_whose_manifest_cannot_be_read_is_stale(tmp_path, text):
    (tmp_path / "delete").mkdir()
    (tmp_path / "delete" / "manifest.json").write_text(text)
    workspace = types.SimpleNamespace(model=lambda name: tmp_path / name, config=None, currency=Currency(tmp_path))
    chain = Chain(workspace, {}, lambda run: {})
    with pytest.raises(
        InputError, match=r"delete \(its model's manifest cannot be read: make the model again, then 'salmu"
    ):
        chain.check_fresh({"delete": {"provenance": {}}})
    assert not chain.imported("delete")
