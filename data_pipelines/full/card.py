"""Writes the data card of a data set: ``README.md``, as the Hugging Face hub and ``datasets`` read it, and ``croissant.json``.

The head of the card lists the splits and columns, so that ``datasets.load_dataset(DIRECTORY)`` finds them as in the release.
Everything in it follows from the data; there is no date, so that equal data have equal cards.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from data_pipelines.full import croissant
from data_pipelines.full.pairs import Plan
from data_pipelines.layout import SPLITS
from data_pipelines.world.personas import Persona
from salmu_jax import __version__

CARD, SHEET = "README.md", "contact_sheet.png"

LICENCE = "https://creativecommons.org/licenses/by/4.0/"
DESCRIPTION = (
    "Portraits of fictitious people with captions that tie each person to nine made-up attributes, divided into what a model"
    " is to forget and what it is to keep: data for benchmarks of association-level unlearning in CLIP, in the layout of"
    " SALMUBench. Nobody in it exists."
)
WHAT = {
    "forget": "What a model is to forget, and a method may read.",
    "holdout_association": "The other associations of people whom forget has in part; no method may read them.",
    "holdout_identity": "People who are not to be forgotten; no method may read them.",
    "retain_synth": "Portraits with generic captions: of people of forget, and of nobody in particular.",
    "sensitive": "The union of forget and both holdouts, which the model that is to unlearn was trained on.",
}
"""What each split is."""

_LIMITS = """\
- The people are invented. Names, numbers and addresses are drawn from ranges that nobody has where there are such ranges; a
  phone number of a country without one may belong to somebody. A city exists; nothing else about a person refers to the world.
- Appearance is annotated by region, gender and age in a few coarse words, and names and countries follow from these
  annotations. They are properties of pictures, made up to be consistent. They say nothing about real people, and a
  model of faces, origin or gender must not be trained on them.
- {pictures}
- Captions are English, of one sentence, and contain name and value verbatim. Real leaks are less tidy.
- Whether a model forgets these people shows what a method does; it is no proof that the method removes real personal data."""


@dataclass(frozen=True)
class Facts:
    """What the card tells.

    Attributes:
      seed: of the data set.
      plan, people: its rows and people.
      counts: of ``shards.distributions``.
      fragile: the report of the step *fragile set*.
      captions: the report of the step *captions*.
      curation: {"anchors": N, "kept": N} and other counts of the step *curation*.
      images: the settings of the source of portraits.
    """

    seed: int
    plan: Plan
    people: list[Persona]
    counts: Mapping[str, Any]
    fragile: Mapping[str, Any]
    captions: Mapping[str, Any]
    curation: Mapping[str, Any]
    images: Mapping[str, Any]

    @property
    def drawn(self) -> bool:
        """Whether the portraits are drawn by this project, not by a generator elsewhere."""
        return self.images["kind"] == "procedural"


def card(facts: Facts, sizes: Mapping[str, int]) -> str:
    """Returns the text of ``README.md``; ``sizes`` are the bytes of the parquet files, by path."""
    counts = facts.counts
    sections = [
        f"---\n{_head(facts, sizes)}---\n",
        "# People to be forgotten\n",
        f"{DESCRIPTION}\n",
        f"Made by salmu_jax {__version__} from seed {facts.seed}, by `salmu generate`; `world.json` has the digest of every"
        " file. `contact_sheet.png` shows some of the people.\n",
        "```python\nimport datasets\n\ndata = datasets.load_dataset(DIRECTORY)  # this directory\n"
        'data["forget"][0]  # {"image", "text", "identity_id", "file_name"}\n```\n',
        "## Splits\n",
        _table(
            ("split", "pairs", "what it is"),
            ((f"`{split}`", f"{counts['pairs'][split]:,}", what) for split, what in WHAT.items()),
        ),
        _table(
            ("subset", "of", "pairs", "people"),
            (
                (f"`{subset}`", f"`{split}`", f"{counts['subsets'][subset]:,}", f"{people:,}")
                for subset, split, people in _subsets(counts)
            ),
        ),
        "An association, a person with an attribute, is in one split with all of its pairs. It has"
        f" {_range(counts['pairs_an_association'])} of them, and a person {_spread(counts['pairs_a_person'])}."
        f" {_portraits(facts)}\n",
        f"The *fragile set* are {facts.fragile['fragile']:,} pairs of `retain_disjoint`: {facts.fragile['rule']}\n",
        "## Files\n",
        _FILES,
        *_sets(facts),
        "## How it was made\n",
        _making(facts),
        "## Distributions\n",
        _table(("region of appearance", "women", "men"), _looks(facts.people)),
        _table(("country", "people"), _most(collections.Counter(person.country for person in facts.people), 15)),
        _table(
            ("attribute", "pairs", "captions", "CLIP tokens, mean", "most"),
            (
                (
                    f"`{field}`",
                    f"{sum(row.data_field == field for row in facts.plan.sensitive()):,}",
                    f"{about['captions']:,}",
                    about["tokens"]["mean"],
                    about["tokens"]["most"],
                )
                for field, about in facts.captions["attributes"].items()
            ),
        ),
        _table(("width / height", "pictures"), _ratios(facts.plan)),
        "## Intended use\n",
        "To train and to evaluate models in research on unlearning: train one model with `sensitive` and one without, unlearn"
        " `forget`, and measure what is left of it and what else was lost. Unlearning methods may read `forget` and"
        " `retain_synth`, and neither holdout.\n",
        "Do not use it to recognise, rate or profile people, or to train a model that does.\n",
        "## Limits\n",
        f"{_LIMITS.format(pictures=_pictures(facts))}\n",
        "## Licence\n",
        "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/), as the data set of the paper. Names of cities are from"
        f" [GeoNames](https://www.geonames.org), CC BY 4.0.{_licence(facts)}\n",
        "## Source\n",
        "The layout, the splits and the counts are those of SALMUBench (*Sensitive Association-Level Multimodal Unlearning*,"
        " CVPR 2026, [arXiv 2603.26316](https://arxiv.org/abs/2603.26316)). None of its pictures, people or captions are"
        " here.",
    ]
    return "\n".join(sections) + "\n"


def croissant_of(facts: Facts, name: str, files: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """Returns the content of ``croissant.json``; ``files`` are (bytes, SHA-256) of all other files, by path."""
    return croissant.describe(
        name=name,
        description=DESCRIPTION,
        licence=LICENCE,
        version="1.0.0",
        splits=WHAT,
        files=files,
        about={
            "citeAs": "SALMUBench: Sensitive Association-Level Multimodal Unlearning. CVPR 2026. arXiv:2603.26316",
            "dataCollection": "Nothing was collected: pictures, people and captions are generated from a seed.",
            "dataBiases": "Appearance is annotated in a few coarse words, and names and countries follow from it.",
            "personalSensitiveInformation": "None of real people. Fictitious people have a name, a city, a job, a blood type,"
            " a phone number, e-mail addresses, an IBAN, a card number and a passport number.",
        },
    )


def _head(facts: Facts, sizes: Mapping[str, int]) -> str:
    """Returns the YAML head: licence and tags, which files each split has, and the columns."""
    pairs = facts.counts["pairs"]
    total = sum(pairs[split] for split in SPLITS)
    lines = ["license: cc-by-4.0", "language:", "- en", "pretty_name: People to be forgotten", "size_categories:"]
    lines += [f"- {_size_category(total)}", "task_categories:", "- zero-shot-image-classification"]
    lines += ["tags:", "- machine-unlearning", "- clip", "- synthetic", "configs:", "- config_name: default"]
    lines += ["  data_files:"]
    for split in WHAT:
        lines += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    lines += ["dataset_info:", "  features:", "  - name: image", "    dtype: image"]
    for column in ("text", "identity_id", "file_name"):
        lines += [f"  - name: {column}", "    dtype: string"]
    lines += ["  splits:"]
    for split in WHAT:
        size = sum(sizes[path] for path in sizes if path.startswith(f"data/{split}-"))
        lines += [f"  - name: {split}", f"    num_bytes: {size}", f"    num_examples: {pairs[split]}"]
    every = sum(size for path, size in sizes.items() if path.startswith("data/"))
    return "\n".join([*lines, f"  download_size: {every}", f"  dataset_size: {every}"]) + "\n"


def _size_category(rows: int) -> str:
    for most, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if rows < most:
            return name
    return "1M<n<10M"


def _table(head: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines) + "\n"


def _subsets(counts: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    people = counts["identities"]
    return [
        ("forget_identity", "forget", people["forget_identity"]),
        ("forget_association", "forget", people["partial"]),
        ("holdout_association", "holdout_association", people["partial"]),
        ("holdout_identity", "holdout_identity", people["holdout_identity"]),
        ("retain_joint", "retain_synth", people["forget"]),
        ("retain_disjoint", "retain_synth", 0),
    ]


def _range(spreads: Mapping[str, Mapping[str, float]]) -> str:
    least, most = min(one["least"] for one in spreads.values()), max(one["most"] for one in spreads.values())
    count = sum(one["of"] for one in spreads.values())
    mean = sum(one["of"] * one["mean"] for one in spreads.values()) / count
    return f"{least} to {most} (mean {mean:.1f})"


def _spread(one: Mapping[str, float]) -> str:
    return f"{one['least']} to {one['most']} (mean {one['mean']:.1f})"


def _portraits(facts: Facts) -> str:
    reused = facts.counts["reused_portraits"]
    if not reused:
        return "Every pair has a portrait of its own."
    return (
        f"{reused:,} pairs show a portrait that another pair of the same association shows too, since a person has fewer"
        " portraits than pairs."
    )


_FILES = """\
- `data/SPLIT-*.parquet`: columns `image` (bytes and path), `text` (the caption), `identity_id` (null in `retain_disjoint`) and
  `file_name` (`IDENTITY_NUMBER_ar-RATIO.jpg`, where the ratio is width / height).
- `identities_metadata.json`: the attributes of each person.
- `sensitive_set_captions_metadata.json`: the caption of each sensitive picture, and the attribute that it is about.
- `sensitive_set_generic_captions.json`: a caption of each sensitive picture that tells nothing of anybody.
- `fragile_set_ids.json`, `fragile_set_all_similarities.json`: the fragile set, and what it was chosen by.
- `croissant.json`: this data set in [Croissant](https://mlcommons.org/croissant/). `world.json`: counts, settings and digests.
"""


def _sets(facts: Facts) -> list[str]:
    """Returns what is said of drawn scenes, if there are some."""
    sets = facts.counts["sets"]
    lines = []
    if "retain" in sets:
        lines.append(f"- `retain/*.tar`: {sets['retain']:,} drawn scenes with captions, in place of web pairs.")
    if "zeroshot" in sets:
        classes = f"{sets['zeroshot_classes']} classes"
        lines.append(f"- `zeroshot/`: {sets['zeroshot']:,} labelled scenes of {classes}, in place of ImageNet.")
    return ["\n".join(lines) + "\n"] if lines else []


def _making(facts: Facts) -> str:
    kept = facts.curation
    source = (
        "The portraits were drawn by a program, without a model and without photographs."
        if facts.drawn
        else "The portraits come from a generator outside of this project; ask whoever made them what it was trained on."
    )
    sources = ", ".join(f"{name} ({count:,})" for name, count in facts.captions["sources"].items())
    return (
        f"1. *Images*: portraits of {kept['anchors']:,} anchors, each annotated with a region, a gender and an age. {source}\n"
        f"2. *Curation*: {kept['kept']:,} anchors were kept, by how consistent and how distinct their portraits are to an"
        f" encoder. `retain_disjoint` shows {facts.counts['anchors_of_retain_disjoint']:,} of the others.\n"
        "3. *Personal data*: nine attributes for each, unique, valid in form, and consistent with the country, which is drawn"
        " from those where people of the annotated region live.\n"
        f"4. *Captions*: {facts.captions['captions']:,}, by their sources: {sources}.\n"
    )


def _looks(people: list[Persona]) -> list[tuple[str, int, int]]:
    counts = collections.Counter((person.region, person.gender) for person in people)
    regions = sorted({region for region, _ in counts})
    return [(region.replace("_", " "), counts[region, "female"], counts[region, "male"]) for region in regions]


def _most(counts: collections.Counter[str], shown: int) -> list[tuple[str, int]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[shown:]
    return [*ordered[:shown], *([(f"{len(rest)} others", sum(count for _, count in rest))] if rest else [])]


def _ratios(plan: Plan) -> list[tuple[str, str]]:
    names = (row.file_name for split in SPLITS for row in plan.rows[split])
    found = collections.Counter(match[1] for name in names if (match := re.search(r"_ar-([0-9.]+)\.[a-z]+$", name)))
    return [(ratio, f"{count:,}") for ratio, count in sorted(found.items(), key=lambda item: float(item[0]))]


def _pictures(facts: Facts) -> str:
    if facts.drawn:
        return (
            "The pictures are drawings. A model of photographs recognises little in them, and results on them say less about"
            "\n  photographs than results on the data of the paper."
        )
    return "The pictures are of a generative model, with what it was trained on and its errors."


def _licence(facts: Facts) -> str:
    return "" if facts.drawn else " The pictures are under whatever licence their generator gives them."
