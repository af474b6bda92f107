"""A method that asks its context for a holdout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Method
from salmu_jax.unlearning.streams import Forget, Stream


@dataclasses.dataclass(frozen=True)
class Curious(Method):
    """Looks at the portraits of people who are not to be forgotten."""

    name: ClassVar[str] = "curious"
    title: ClassVar[str] = "Curious"
    reference: ClassVar[str] = "nobody, nowhere"
    defaults: ClassVar[Hyper] = Hyper(epochs=0.0, total_steps=0)
    streams: ClassVar[Mapping[str, Stream]] = {"forget": Forget()}

    def prepare(self, ctx):
        return ctx.encode_images("salmu/holdout_identity")
