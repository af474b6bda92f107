"""Makes the data set at the size of the release, or at any size in proportion: read from :func:`generate_full` down.

    WORKDIR/images/            portraits of anchors                                  data_pipelines/portraits/step.py
    WORKDIR/reference/         portraits of other people, for curation, where these are given (not for drawn portraits)
    WORKDIR/curation/          who is kept, with which portraits, and why            data_pipelines/curation/
    WORKDIR/personal_data/     nine attributes of each person who is kept            data_pipelines/people/step.py
    WORKDIR/captions/          sensitive captions                                    data_pipelines/phrasing/step.py
    WORKDIR/generic_captions/  what the portraits show
    WORKDIR/splits/            parquet shards                                        shards.py
    WORKDIR/fragile_set/       similarities of retain_disjoint                       fragile.py
    WORKDIR/scenes/            retain pairs and a zero-shot set, where they are asked for    scenes.py
    WORKDIR/world/             the data set: links to these files, the data card, the contact sheet, digests

Each is a step (``data_pipelines/steps.py``): killed and started again, it goes on, and the result is the same. A step whose
settings and inputs are unchanged is kept, so that another caption file costs no portraits. A finished world needs none of
the other directories.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines import steps
from data_pipelines.curation.encoder import load_encoder
from data_pipelines.full import curated as curated_lib
from data_pipelines.full import fragile, scenes, shards, sheet
from data_pipelines.full.assemble import assemble
from data_pipelines.full.card import Facts
from data_pipelines.full.fragile import Judge
from data_pipelines.full.pairs import Album, plan_pairs
from data_pipelines.full.sizes import Sizes
from data_pipelines.people import step as people_step
from data_pipelines.people.people import Looks
from data_pipelines.phrasing import step as captions_step
from data_pipelines.phrasing.paraphrases import check_paraphrases
from data_pipelines.portraits import step as images_step
from data_pipelines.portraits.source import PortraitSource
from data_pipelines.portraits.step import Images
from salmu_jax.runtime import files

GENERATOR_VERSION = 1
"""Incremented whenever the same settings and steps would give another world."""

IMAGES, REFERENCE, CURATION, PEOPLE, CAPTIONS = "images", "reference", "curation", "personal_data", "captions"
GENERIC, SPLITS, FRAGILE_SET, SCENES = "generic_captions", "splits", "fragile_set", "scenes"


@dataclass(frozen=True)
class Options:
    """What a data set is made from, besides portraits.

    Attributes:
      seed: of everything that is drawn.
      sizes: people, anchors and pairs.
      variants: captions of an association.
      paraphrases: a JSONL file of captions to use in place of the grammar; None: the grammar.
      encoder: what curation embeds with, a file of weights or ``module:attribute``; None: it trains one.
      scenes, zeroshot_images, scene_size: drawn retain pairs and labelled images, 0: none, and their side in pixels.
      workers: processes; the result does not depend on their number.
    """

    seed: int
    sizes: Sizes
    variants: int = 12
    paraphrases: Path | None = None
    encoder: str | None = None
    scenes: int = 0
    zeroshot_images: int = 0
    scene_size: int = 64
    workers: int = 2


JudgeOf = Callable[[Images, Mapping[str, str]], Judge]
"""Makes a judge of pairs, given the portraits and {file name of a portrait: its generic caption}."""


def generate_full(
    workdir: str | os.PathLike,
    world: str | os.PathLike,
    source: PortraitSource,
    options: Options,
    *,
    reference: PortraitSource | None = None,
    judge: JudgeOf | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Makes what is missing of all steps, then ``world``; returns the content of its ``world.json``.

    Args:
      workdir: where the steps have their directories.
      world: the directory to make; replaced, if it is ours, once the new one is complete.
      source: the portraits.
      options: everything else.
      reference: portraits of other people from the same generator, whose annotations are right, on whom curation measures its
        thresholds; None: some are drawn, which is right for drawn portraits only.
      judge: what the fragile set is computed with; None: with the embeddings of curation.
      say: called with lines about progress, and where earlier files are not used.

    Raises InputError for bad input, for too few portraits, and where a directory holds files that are not ours.
    """
    root, seed, sizes = Path(workdir), options.seed, options.sizes
    _check(options)  # before an hour's work
    images_step.make_images(root / IMAGES, source, workers=options.workers, say=say)
    images = images_step.read_images(root / IMAGES)

    if reference is not None:
        images_step.make_images(root / REFERENCE, reference, workers=options.workers, say=say)
    curated_lib.curate(
        root / CURATION,
        root / IMAGES,
        keep=sizes.people,
        seed=seed,
        encoder=options.encoder,
        reference=None if reference is None else root / REFERENCE,
        workers=options.workers,
        say=say,
    )
    curated = curated_lib.read_curated(root / CURATION, images)

    say("personal data")
    looks = [Looks(one.anchor.number, one.anchor.region, one.anchor.gender) for one in curated.kept]
    people = people_step.make_personal_data(root / PEOPLE, seed, looks, say=say)

    say("captions")
    captions_report = captions_step.make_captions(
        root / CAPTIONS, seed, people, variants=options.variants, paraphrases=options.paraphrases, say=say
    )

    albums = [Album(one.anchor.number, one.files) for one in curated.kept]
    generic, others = _generic_captions(images, albums, curated.twins, sizes.pairs["retain_disjoint"])
    captions_step.make_generic_captions(root / GENERIC, generic.items(), people, say=say)

    plan = plan_pairs(seed, sizes, albums, others, _captions(root / CAPTIONS))
    inputs = {
        "seed": seed,
        "sizes": sizes._asdict(),
        **{
            name: steps.step_digest(root / name, step)
            for name, step in (
                (IMAGES, images_step.STEP),
                (CURATION, curated_lib.STEP),
                (PEOPLE, people_step.STEP),
                (CAPTIONS, captions_step.STEP),
                (GENERIC, captions_step.GENERIC_STEP),
            )
        },
    }
    made = shards.make_shards(root / SPLITS, plan, images, people, generic, inputs, workers=options.workers, say=say)
    report = files.read_json(root / SPLITS / steps.REPORT)
    check_counts(report, sizes)

    fragile_report = fragile.make_fragile(
        root / FRAGILE_SET,
        plan.rows["retain_synth"],
        sizes.fragile,
        judge(images, generic) if judge else curated.judge,
        inputs,
        say=say,
    )
    sets = {"retain": options.scenes, "labelled": options.zeroshot_images}
    drawn: dict[str, str] = {}
    if any(sets.values()):
        drawn = scenes.make_scenes(
            root / SCENES, seed, **sets, side=options.scene_size, workers=options.workers, say=say
        )["files"]
    facts = Facts(
        seed=seed,
        plan=plan,
        people=people,
        counts={**report, "sets": scenes.counts(**sets)},
        fragile=fragile_report,
        captions=captions_report,
        curation={"anchors": len(images.anchors), "kept": len(albums)},
        images=images.settings,
    )
    say("world")
    return assemble(
        world,
        {
            root / SPLITS: {name: digest for name, digest in made["files"].items() if name != shards.ROWS},
            root / FRAGILE_SET: steps.finished(root / FRAGILE_SET, fragile.STEP)["files"],
            root / SCENES: drawn,
        },
        facts,
        sheet.contact_sheet(seed, albums, images),
        {"sizes": sizes._asdict(), "variants": options.variants, "portraits": dict(images.settings)},
        version=GENERATOR_VERSION,
        say=say,
    )


def _check(options: Options) -> None:
    """Raises InputError for what later steps would refuse: the size and number of scenes, the encoder, the paraphrases."""
    scenes.check(options.zeroshot_images, options.scene_size)
    if options.paraphrases is not None:
        check_paraphrases(options.paraphrases, options.sizes.people, options.variants)
    if options.encoder is not None:
        load_encoder(options.encoder)


def check_counts(report: Mapping[str, Any], sizes: Sizes) -> None:
    """Compares the counts of a plan with what was asked for: each subset, the union, and the people."""
    pairs, subsets, people = report["pairs"], report["subsets"], report["identities"]
    wanted = {**sizes.pairs, "forget": sizes.pairs["forget_identity"] + sizes.pairs["forget_association"]}
    wanted["sensitive"] = wanted["forget"] + sizes.pairs["holdout_association"] + sizes.pairs["holdout_identity"]
    wanted["retain_synth"] = sizes.pairs["retain_joint"] + sizes.pairs["retain_disjoint"]
    found = {name: pairs[name] if name in pairs else subsets[name] for name in wanted}
    assert found == wanted, f"{found} where {wanted} was asked for"
    assert people["all"] == sizes.people == people["forget"] + people["holdout_identity"]


def _generic_captions(
    images: Images, albums: Sequence[Album], twins: Mapping[int, float], wanted: int
) -> tuple[dict[str, str], list[Album]]:
    """Returns the generic captions of all portraits that rows may show, and the albums for retain_disjoint.

    These are of all anchors that curation dropped but ``twins``, of whose portraits too many look like somebody who was kept.
    If the others have fewer than ``wanted`` portraits, the twins come in of whose portraits the fewest do.
    """
    kept = {album.number: set(album.files) for album in albums}
    numbers = [anchor.number for anchor in images.anchors]
    first = [number for number in numbers if number in kept or number not in twins]
    generic: dict[str, str] = {}
    others: list[Album] = []
    for number in [*first, *sorted(set(numbers) - set(first), key=lambda number: (twins[number], number))]:
        if number in twins and number not in kept and sum(len(album.files) for album in others) >= wanted:
            break
        found = {name: caption for name, _, caption in images.portraits(number)}
        if number not in kept:
            others.append(Album(number, tuple(found)))
        generic |= {name: text for name, text in found.items() if name in kept.get(number, found)}
    return generic, others


def _captions(directory: Path) -> dict[tuple[str, str], list[str]]:
    found = collections.defaultdict(list)
    for row in captions_step.read_captions(directory):
        found[row.identity_id, row.data_field].append(row.caption)
    return dict(found)
