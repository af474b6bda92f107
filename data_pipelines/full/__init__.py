"""Makes the data set at the size of the release, in steps that go on after a kill (``generate.py``)."""
