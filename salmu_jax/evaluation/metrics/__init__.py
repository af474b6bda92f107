"""The metrics of a result, one a file; ``registry.py`` lists them."""
