"""Checkpoints to and from PyTorch: OpenCLIP and transformers, both ways, without torch."""
