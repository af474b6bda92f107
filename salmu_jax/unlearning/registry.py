"""The methods by name. A new one is its file ``methods/NAME.py``, an import and an entry here.

One in a user's own file needs neither: it is named ``FILE.py:CLASS`` (``user_methods.py``).
"""

from __future__ import annotations

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean
from salmu_jax.unlearning import user_methods
from salmu_jax.unlearning.method import Method
from salmu_jax.unlearning.methods.alignment_calibration import AlignmentCalibration
from salmu_jax.unlearning.methods.cliperase import CLIPErase
from salmu_jax.unlearning.methods.cliperase_paper import CLIPErasePaper
from salmu_jax.unlearning.methods.delete import Delete
from salmu_jax.unlearning.methods.delete_paper import DeletePaper
from salmu_jax.unlearning.methods.descent_to_delete import DescentToDelete
from salmu_jax.unlearning.methods.direct_similarity_minimisation import DirectSimilarityMinimisation
from salmu_jax.unlearning.methods.finetuning import Finetuning
from salmu_jax.unlearning.methods.generic_captions import GenericCaptions
from salmu_jax.unlearning.methods.gradient_projection import GradientProjection
from salmu_jax.unlearning.methods.lip import Lip
from salmu_jax.unlearning.methods.lora_subtract import LoraSubtract
from salmu_jax.unlearning.methods.munba import MUNBa
from salmu_jax.unlearning.methods.negative_gradient import NegativeGradient
from salmu_jax.unlearning.methods.negmerge import NegMerge
from salmu_jax.unlearning.methods.no_op import NoOp
from salmu_jax.unlearning.methods.npo import NPO
from salmu_jax.unlearning.methods.pinned_surrogates import PinnedSurrogates
from salmu_jax.unlearning.methods.random_weights import RandomWeights
from salmu_jax.unlearning.methods.redirect import Redirect
from salmu_jax.unlearning.methods.relearn import Relearn
from salmu_jax.unlearning.methods.salun import SalUn
from salmu_jax.unlearning.methods.scrub import Scrub
from salmu_jax.unlearning.methods.shuffled_captions import ShuffledCaptions
from salmu_jax.unlearning.methods.slug import SLUG
from salmu_jax.unlearning.methods.ssd import SSD
from salmu_jax.unlearning.methods.targeted_forgetting import TargetedForgetting
from salmu_jax.unlearning.methods.task_vector import TaskVector
from salmu_jax.unlearning.methods.text_projection import TextProjection
from salmu_jax.unlearning.methods.vlunlearn import VLUnlearn
from salmu_jax.unlearning.methods.weight_soup import WeightSoup

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
        CLIPErasePaper,
        DeletePaper,
        SalUn,
        SSD,
        SLUG,
        MUNBa,
        Lip,
        TaskVector,
        NegMerge,
        WeightSoup,
        TargetedForgetting,
        Scrub,
        NPO,
        AlignmentCalibration,
        GradientProjection,
        LoraSubtract,
        TextProjection,
        PinnedSurrogates,
        Redirect,
        Relearn,
        NoOp,
        RandomWeights,
    )
}


def get(name: str) -> Method:
    """Returns the method called ``name``, or of a file, ``FILE.py:CLASS``, with its default options.

    Raises InputError naming those that exist, or saying what is wrong with the file.
    """
    if user_methods.is_file_name(name):
        return load(name)()
    if name not in METHODS:
        hint = did_you_mean(str(name), METHODS)
        message = f"unknown unlearning method {name!r}; {hint + ' ' if hint else ''}There are: {', '.join(METHODS)}"
        raise InputError(message, "method")
    return METHODS[name]()


def load(name: str) -> type[Method]:
    """Returns the class of a user's file, ``FILE.py:CLASS``. Raises InputError naming the file, and the line that fails."""
    return user_methods.load(name)
