"""Converts checkpoints to and from OpenCLIP and transformers, without torch."""
