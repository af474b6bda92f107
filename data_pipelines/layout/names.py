"""The names of files, splits and fields in the released layout."""

from __future__ import annotations

DATA_FIELDS = ("name", "city", "job", "blood_type", "phone_number", "emails", "iban", "credit_card", "passport")
SENSITIVE_SPLITS = ("forget", "holdout_association", "holdout_identity")
SPLITS = (*SENSITIVE_SPLITS, "retain_synth")
"""The splits of a world that models can be evaluated on; ``sensitive``, the first three in this order, is derived."""
TRAINING_SPLITS = ("sensitive", "retain_synth")
"""The splits of the training repository."""

SUBSETS = (
    "forget_identity",
    "forget_association",
    "holdout_association",
    "holdout_identity",
    "retain_joint",
    "retain_disjoint",
)

IDENTITIES = "identities_metadata.json"
CAPTIONS = "sensitive_set_captions_metadata.json"
GENERIC_CAPTIONS = "sensitive_set_generic_captions.json"
FRAGILE_IDS = "fragile_set_ids.json"
FRAGILE_SIMILARITIES = "fragile_set_all_similarities.json"

JSON_FILES = (IDENTITIES, CAPTIONS, GENERIC_CAPTIONS, FRAGILE_IDS, FRAGILE_SIMILARITIES)
