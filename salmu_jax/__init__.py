"""SALMUBench in JAX: association-level unlearning for CLIP, from the data to the leaderboard."""

__version__ = "0.1.0"
