"""Imports of one benchmark, until it is changed to models/build.py."""

from salmu_jax.models.build import input_manifest, make_tokenizer

__all__ = ["input_manifest", "make_tokenizer"]
