"""Makes, checks and reads data: the world generator, the released layout, the TFDS builders and the input pipeline."""
