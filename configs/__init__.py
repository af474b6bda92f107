"""Configurations: one file a run, each a ``get_config()``; the fields are explained in ``salmu_jax/config.py``."""
