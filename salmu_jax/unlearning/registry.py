"""The methods by name. A new one is its file ``methods/NAME.py``, an import and an entry here."""

from __future__ import annotations

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean
from salmu_jax.unlearning.method import Method
from salmu_jax.unlearning.methods.cliperase import CLIPErase
from salmu_jax.unlearning.methods.delete import Delete
from salmu_jax.unlearning.methods.descent_to_delete import DescentToDelete
from salmu_jax.unlearning.methods.direct_similarity_minimisation import DirectSimilarityMinimisation
from salmu_jax.unlearning.methods.finetuning import Finetuning
from salmu_jax.unlearning.methods.generic_captions import GenericCaptions
from salmu_jax.unlearning.methods.negative_gradient import NegativeGradient
from salmu_jax.unlearning.methods.shuffled_captions import ShuffledCaptions
from salmu_jax.unlearning.methods.vlunlearn import VLUnlearn

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Finetuning,
        NegativeGradient,
        ShuffledCaptions,
        GenericCaptions,
        DirectSimilarityMinimisation,
        VLUnlearn,
        CLIPErase,
        Delete,
        DescentToDelete,
    )
}


def get(name: str) -> Method:
    """The method called ``name``, with its published options. Raises InputError naming those that exist."""
    if name not in METHODS:
        hint = did_you_mean(str(name), METHODS)
        message = f"unknown unlearning method {name!r}; {hint + ' ' if hint else ''}There are: {', '.join(METHODS)}"
        raise InputError(message, "method")
    return METHODS[name]()
