"""Data in and out: making a world, the released layout, the TFDS builders and the input pipeline."""
