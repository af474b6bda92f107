"""The methods, one a file. Their losses are those of the benchmark's baselines; the registry lists them."""
