"""Config files, each with a ``get_config()``. ``salmu_jax/config_fields.py`` explains the fields."""
