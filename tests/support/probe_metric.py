"""A metric that a user may add, in a file of its own."""

from salmu_jax.evaluation import parts
from salmu_jax.evaluation.metric import Metric, Sample
from salmu_jax.evaluation.rows import Column, by_identity


def probe(**changes) -> Metric:
    """A metric that a user may add: how near forget images are to their captions in capitals."""

    def capitals(data):
        return [text.upper() for text in data.splits["forget"].text]

    def score(inputs):
        return {"probe.capitals": parts.similarity_with(inputs, "forget", capitals(inputs.data))}

    fields = {
        "key": "Capitals",
        "title": "Capitals",
        "description": "Mean similarity of forget images with their captions in capitals.",
        "better": "lower",
        "target": "clean",
        "columns": {"probe.capitals": Column("<f4", "forget", "cosine")},
        "texts": lambda data, settings: {"capitals": capitals(data)},
        "score": score,
        "sample": lambda rows, protocol: Sample(rows["probe.capitals"], by_identity(rows, "forget")),
    }
    return Metric(**{**fields, **changes})
