"""Decides what becomes of a sample: it is accepted as it came, filtered as asked, or quarantined as unusable."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from data_pipelines.layout.shards import IMAGE_SUFFIXES, Pair, decode_text, is_blank
from data_pipelines.retain.samples import Fault, Sample
from salmu_jax.models.preprocess import TooLargeError, inspect_image
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import control_character, parse_json

NO_IMAGE, NO_CAPTION, EMPTY, BAD_TEXT, UNDECODABLE, BOMB = (
    "no image",
    "no caption",
    "empty caption",
    "unreadable caption",
    "undecodable image",
    "image too large",
)
FEW_TOKENS, MANY_TOKENS, SMALL = "caption too short", "caption too long", "image too small"


@dataclass(frozen=True)
class Rules:
    """Filters that a user may set; by default every usable pair is kept.

    Attributes:
      min_tokens: of a caption in CLIP's vocabulary, without start and end; 0: any.
      max_tokens: as above; 0: any. 75 are seen by CLIP, which cuts longer captions off.
      min_side: of an image, in pixels, the shorter one; 0: any.

    Raises:
      InputError: a number is negative, or the least exceeds the most.
    """

    min_tokens: int = 0
    max_tokens: int = 0
    min_side: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise InputError(f"is {value}; 0 (any) or more is needed", name)
        if 0 < self.max_tokens < self.min_tokens:
            raise InputError(f"is {self.max_tokens}, below min_tokens={self.min_tokens}", "max_tokens")

    def fields(self) -> dict[str, Any]:
        """Returns the rules as JSON, for the settings of a build."""
        return dict(vars(self))

    def judge(self, sample: Sample) -> Pair | Fault | str:
        """Returns the pair, the fault that sends the sample to quarantine, or the name of the filter that it fails.

        The image has been decoded completely. A pair is judged by its own bytes alone.
        """
        if sample.fault:
            return sample.fault
        image = next((data for suffix, data in sample.members.items() if suffix in IMAGE_SUFFIXES), None)
        if image is None:
            return Fault(NO_IMAGE, f"no image beside .{' and .'.join(sorted(sample.members))}")
        try:
            text = _caption(sample.members)
        except InputError as error:
            return Fault(BAD_TEXT, error.message)
        if text is None:
            return Fault(NO_CAPTION, "neither a .txt file nor a 'caption' in the .json file")
        if is_blank(text):
            return Fault(EMPTY, "the caption is empty or blank")
        if control := control_character(text, ascii_only=True):
            return Fault(BAD_TEXT, f"a control character ({control}) in the caption")
        try:
            facts = inspect_image(image)
        except TooLargeError as error:
            return Fault(BOMB, error.message)
        except InputError as error:
            return Fault(UNDECODABLE, error.message)
        return self._filter(text, min(facts.width, facts.height)) or Pair(sample.key, image, text)

    def _filter(self, text: str, side: int) -> str | None:
        if side < self.min_side:
            return SMALL
        if self.min_tokens or self.max_tokens:
            tokens = len(_tokenizer().encode(text))
            if tokens < self.min_tokens:
                return FEW_TOKENS
            if 0 < self.max_tokens < tokens:
                return MANY_TOKENS
        return None


def _caption(members: dict[str, bytes]) -> str | None:
    """Returns the caption of the .txt file or, without one, that of the .json file; None if there is none."""
    if "txt" in members:
        return decode_text(members["txt"], "the .txt file")
    if "json" in members:
        facts = parse_json(members["json"], "the .json file")
        text = facts.get("caption") if isinstance(facts, dict) else None
        return text if isinstance(text, str) else None
    return None


@functools.cache
def _tokenizer() -> ClipTokenizer:
    return ClipTokenizer()
