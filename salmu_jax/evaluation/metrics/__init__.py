"""The metrics of a result, one per file; ``registry.py`` lists them."""
