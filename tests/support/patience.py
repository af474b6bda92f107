"""How long tests wait: long, since a busy machine is no error. Nothing asserts how fast anything is."""

DEADLINE = 900.0  # seconds for another process, or whatever else may hang
