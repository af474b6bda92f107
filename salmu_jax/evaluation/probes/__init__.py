"""The probes, one file each; `registry.py` lists them, and a config chooses among them (`evaluate.probes`)."""
