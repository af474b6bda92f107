"""The CLIP towers, the tokenizer, the preprocessing, and the architectures by name."""
