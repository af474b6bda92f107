"""Options: their types, ranges and choices, and one line for a value that does not fit."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.options import Option, describe_options, option, with_options

if TYPE_CHECKING:
    from salmu_jax.unlearning.streams import Stream


@dataclasses.dataclass(frozen=True)
class Example:
    name: ClassVar[str] = "example"
    streams: ClassVar[dict[str, Stream]] = {}  # names what is not imported when it runs

    weight: float = option(1.0, help="weight of the term", low=0)
    rank: int = option(4, help="rank of the factors", low=1, high=64)
    share: float = option(0.5, help="share of the entries", low=0, high=1, low_open=True)
    tower: str = option("text", help="what is edited", choices=("text", "visual"))
    floor: float | None = option(None, help="lowest cosine; None: measured")
    layers: tuple[int, ...] = option((0, 1), help="which blocks", low=0)
    exact: bool = False


def test_options_are_described_by_type_range_default_and_meaning():
    assert (
        describe_options(Example)
        == describe_options(Example())
        == [
            Option("weight", "float", 1.0, "at least 0", "weight of the term"),
            Option("rank", "int", 4, "1 to 64", "rank of the factors"),
            Option("share", "float", 0.5, "above 0 and at most 1", "share of the entries"),
            Option("tower", "str", "text", "'text' or 'visual'", "what is edited"),
            Option("floor", "float or None", None, "", "lowest cosine; None: measured"),
            Option("layers", "tuple", (0, 1), "at least 0", "which blocks"),
            Option("exact", "bool", False, "", ""),
        ]
    )


@pytest.mark.parametrize(
    "values",
    [
        {"weight": 2, "rank": 64, "share": 1.0, "tower": "visual", "exact": True},
        {"floor": 0.25, "layers": (2,)},
        {"floor": None, "layers": ()},
    ],
)
def test_values_that_fit_replace_the_defaults(values):
    changed = with_options(Example(), values)
    assert {name: getattr(changed, name) for name in values} == values
    assert dataclasses.replace(changed, **{name: getattr(Example(), name) for name in values}) == Example()


def test_a_list_of_a_config_becomes_a_tuple():
    assert with_options(Example(), {"layers": [3, 4]}).layers == (3, 4)


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ({"wieght": 1.0}, "options.wieght: example has no option 'wieght'; did you mean 'weight'?"),
        (
            {"zzz": 1},
            "options.zzz: example has no option 'zzz'; its options are: weight, rank, share, tower, floor, layers",
        ),
        ({"weight": -0.1}, "options.weight: must be at least 0, not -0.1"),
        ({"weight": "1"}, "options.weight: must be of type float, like 1.0, not '1'"),
        ({"weight": True}, "options.weight: must be of type float"),
        ({"weight": float("nan")}, "options.weight: must be finite, not nan"),
        ({"weight": 10**400}, "options.weight: must be finite, not 1000"),
        ({"rank": 2.0}, "options.rank: must be of type int, like 4, not 2.0"),
        ({"rank": 65}, "options.rank: must be 1 to 64, not 65"),
        ({"share": 0}, "options.share: must be above 0 and at most 1, not 0"),
        ({"tower": "both"}, "options.tower: must be 'text' or 'visual', not 'both'"),
        ({"floor": "low"}, "options.floor: must be of type float or None, like None, not 'low'"),
        ({"layers": [1, "2"]}, "options.layers: must be of type tuple, like (0, 1), not [1, '2']"),
        ({"layers": [1, -2]}, "options.layers: must be at least 0, not (1, -2)"),
        ({"layers": 3}, "options.layers: must be of type tuple"),
        ({"exact": 1}, "options.exact: must be of type bool, like False, not 1"),
    ],
)
def test_values_that_do_not_fit_are_answered_with_one_line(values: dict[str, Any], answer: str):
    with pytest.raises(InputError) as caught:
        with_options(Example(), values)
    assert str(caught.value).startswith(answer)
    assert "\n" not in str(caught.value)
