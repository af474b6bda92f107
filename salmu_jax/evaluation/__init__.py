"""Evaluates models: embeddings once a model, the ten metrics of SALMUBench, intervals, and what a method did, in words."""
