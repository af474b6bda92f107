"""One defect at a time is planted in a world without a fault; the audit finds it, says where it is, and finds nothing else."""

from __future__ import annotations

import inspect
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from good_world import GoodWorld, people, picture
from PIL import Image

from data_pipelines.audit import KINDS, audit_world
from data_pipelines.layout import Pair, pair_members, write_tar

FORGET, ASSOCIATION, IDENTITY, SYNTH, SENSITIVE = (
    f"data/{split}-00000-of-00001.parquet"
    for split in ("forget", "holdout_association", "holdout_identity", "retain_synth", "sensitive")
)
PEOPLE, CAPTIONS, GENERIC = (
    "identities_metadata.json",
    "sensitive_set_captions_metadata.json",
    "sensitive_set_generic_captions.json",
)
FRAGILE, SIMILARITIES = "fragile_set_ids.json", "fragile_set_all_similarities.json"
FIRST, SECOND = "retain/00000.tar", "retain/00001.tar"
CLASSES = "zeroshot/test/0.tar"


@dataclass(frozen=True)
class Defect:
    """A defect: how it is planted, and the findings that it is to give, as (kind, problem, file, place, field, words)."""

    plant: Callable
    findings: list[tuple[str, bool, str, str, str, str]]


DEFECTS: dict[str, Defect] = {}


def defect(kind: str, file: str, place: str = "", field: str = "", says: str = "", *, odd: bool = False):
    """Registers a defect; several above one function are several findings."""

    def add(plant: Callable) -> Callable:
        known = DEFECTS.setdefault(plant.__name__, Defect(plant, []))
        known.findings.append((kind, not odd, file, place, field, says))
        return plant

    return add


def name_of(world: GoodWorld, split: str, row: int) -> str:
    return world.rows[split][row]["file_name"]


def table_of(directory: Path, file: str) -> pa.Table:
    return pq.read_table(directory / file)


# Files: ``plant(directory)`` changes what was written ------------------------------------------------------------------------


@defect("file", "data/holdout_identity-*.parquet", says="no such file; the split 'holdout_identity' needs one or more")
def a_split_is_missing(directory: Path):
    (directory / IDENTITY).unlink()


@defect("file", "data", says="1 file forget-...-of-00002, and 2 belong together; fetch the missing ones")
def a_part_of_a_split_is_missing(directory: Path):
    (directory / FORGET).rename(directory / "data" / "forget-00000-of-00002.parquet")


@defect("file", "data", says="two sets of files of 'retain_synth' with different rows")
def two_sets_of_files_differ(directory: Path):
    table = table_of(directory, SYNTH)
    pq.write_table(table.slice(1, 3), directory / "data" / "retain_synth-00000-of-00002.parquet")
    pq.write_table(table.slice(4), directory / "data" / "retain_synth-00001-of-00002.parquet")


@defect("unread", "data/train-00000-of-00001.parquet", says="files or folders that are not read", odd=True)
def a_split_that_nobody_knows(directory: Path):
    shutil.copy(directory / FORGET, directory / "data" / "train-00000-of-00001.parquet")


@defect("file", FORGET, says="not a whole parquet file")
def a_parquet_file_is_cut_short(directory: Path):
    data = (directory / FORGET).read_bytes()
    (directory / FORGET).write_bytes(data[: len(data) // 2])


@defect("file", FORGET, says="not a whole parquet file")
def a_parquet_file_is_a_page_of_html(directory: Path):
    (directory / FORGET).write_text("<html>404</html>" * 20)


@defect("file", FORGET, "row 0", says="damaged")
def a_page_of_a_parquet_file_is_damaged(directory: Path):
    data = bytearray((directory / FORGET).read_bytes())
    data[4:44] = bytes(40)
    (directory / FORGET).write_bytes(data)


@defect("file", IDENTITY, says="no rows; the split 'holdout_identity' needs one or more")
@defect("unmatched", PEOPLE, "key '00000003'", says="no row is of this person", odd=True)
def a_split_without_rows(directory: Path):
    pq.write_table(table_of(directory, IDENTITY).slice(0, 0), directory / IDENTITY)
    captions = json.loads((directory / CAPTIONS).read_text())
    generic = json.loads((directory / GENERIC).read_text())
    kept = [name for name in captions if not name.startswith("00000003")]
    (directory / CAPTIONS).write_text(json.dumps({name: captions[name] for name in kept}))
    (directory / GENERIC).write_text(json.dumps({name: generic[name] for name in kept}))


@defect("file", PEOPLE, says="no such file or directory")
def a_json_file_is_missing(directory: Path):
    (directory / PEOPLE).unlink()


@defect("file", CAPTIONS, says="not JSON: ")
def a_json_file_is_cut_short(directory: Path):
    text = (directory / CAPTIONS).read_text()
    (directory / CAPTIONS).write_text(text[: len(text) // 2])


@defect("file", PEOPLE, says="not UTF-8 text")
def a_json_file_in_another_encoding(directory: Path):
    (directory / PEOPLE).write_bytes('{"é": {}}'.encode("latin-1"))


@defect("file", FRAGILE, says="an object where a list would be right")
def a_json_file_of_another_kind(directory: Path):
    (directory / FRAGILE).write_text("{}")


@defect("file", PEOPLE, says="the key '00000001' comes twice in an object")
def a_key_twice_in_a_json_file(directory: Path):
    (directory / PEOPLE).write_text('{"00000001": {}, "00000001": {}}')


@defect("file", GENERIC, says="a pointer of Git LFS, not the file itself")
def a_pointer_of_git_lfs(directory: Path):
    (directory / GENERIC).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")


@defect("file", FORGET, says="it is a pipe; a regular file is needed")
def a_pipe_where_a_file_should_be(directory: Path):
    (directory / FORGET).unlink()
    os.mkfifo(directory / FORGET)


@defect("unread", "notes", says="files or folders that are not read", odd=True)
def a_folder_that_is_not_read(directory: Path):
    (directory / "notes").mkdir()


@defect("column", FORGET, field="text", says="no such column; the columns are image, text, identity_id, file_name")
def a_column_is_missing(directory: Path):
    pq.write_table(table_of(directory, FORGET).drop_columns("text"), directory / FORGET)


@defect("column", IDENTITY, field="identity_id", says="its type is int64; string would be right")
def a_column_of_another_type(directory: Path):
    table = table_of(directory, IDENTITY)
    numbers = pa.array([int(value) for value in table["identity_id"].to_pylist()])
    pq.write_table(table.set_column(2, "identity_id", numbers), directory / IDENTITY)


@defect("column", SYNTH, field="image", says="its type is binary; a struct of bytes (binary) and path (string)")
def images_without_a_struct(directory: Path):
    table = table_of(directory, SYNTH)
    data = pa.array([value["bytes"] for value in table["image"].to_pylist()])
    pq.write_table(table.set_column(0, "image", data), directory / SYNTH)


@defect("row", ASSOCIATION, "row 1", "text", "text that is not UTF-8")
def a_caption_that_is_not_utf8(directory: Path):
    table = table_of(directory, ASSOCIATION)
    texts = [value.encode() for value in table["text"].to_pylist()]
    column = pa.array([texts[0], b"caf\xe9", *texts[2:]]).view(pa.string())
    pq.write_table(table.set_column(1, "text", column), directory / ASSOCIATION)


# Rows: ``plant(world)`` changes what will be written -------------------------------------------------------------------------


@defect("row", FORGET, "row 2", "text", "null or empty; the caption is needed")
def a_caption_is_null(world: GoodWorld):
    world.rows["forget"][2]["text"] = None


@defect("row", IDENTITY, "row 3", "identity_id", "null or empty; every row of 'holdout_identity' is of a person")
def an_identity_is_null(world: GoodWorld):
    world.rows["holdout_identity"][3]["identity_id"] = None


@defect("row", SYNTH, "row 5", "file_name", "null or empty; a name is needed")
def a_file_name_is_empty(world: GoodWorld):
    world.rows["retain_synth"][5]["file_name"] = ""
    del world.json[SIMILARITIES]["synth_000003_ar-1.50.jpg"]


@defect("row", FORGET, "row 4", "image", "null or empty; the encoded image is needed")
def an_image_is_null(world: GoodWorld):
    world.rows["forget"][4]["image"] = {"bytes": None, "path": "x"}


@defect("control", SYNTH, "row 0", "text", "a control character (U+001B)")
def a_control_character_in_a_caption(world: GoodWorld):
    world.rows["retain_synth"][0]["text"] += "\x1b[31m"


@defect("blank", SYNTH, "row 4", "text", "captions that are empty or blank", odd=True)
def a_blank_caption(world: GoodWorld):
    world.rows["retain_synth"][4]["text"] = " \u200b"


@defect("long", SYNTH, "row 3", "text", "120 tokens, of which 45 are cut off; at most 75 would be right", odd=True)
def a_caption_that_is_too_long(world: GoodWorld):
    world.rows["retain_synth"][3]["text"] = "dog " * 120


@defect("long", GENERIC, "key '00000000_000_ar-1.50.jpg'", says="90 tokens, of which 15 are cut off", odd=True)
def a_generic_caption_that_is_too_long(world: GoodWorld):
    world.json[GENERIC]["00000000_000_ar-1.50.jpg"] = "dog " * 90


@defect("repeated", SYNTH, "row 3", "file_name", "row 2; file names must be unique over all splits")
def a_file_name_twice_in_a_split(world: GoodWorld):
    world.rows["retain_synth"][3]["file_name"] = name_of(world, "retain_synth", 2)
    del world.json[SIMILARITIES]["synth_000001_ar-1.50.jpg"]
    world.json[FRAGILE].pop()


@defect("repeated", SYNTH, "row 1", "file_name", "row 3; file names must be unique over all splits")
def a_file_name_in_two_splits(world: GoodWorld):
    world.rows["retain_synth"][1]["file_name"] = name_of(world, "forget", 3)


@defect("name", FORGET, "row 0", "file_name", "it does not begin with the person, '00000000_'", odd=True)
def a_file_name_of_somebody_else(world: GoodWorld):
    old, new = name_of(world, "forget", 0), "99999999_000_ar-1.50.jpg"
    world.rows["forget"][0]["file_name"] = new
    for name in (CAPTIONS, GENERIC):
        world.json[name][new] = world.json[name].pop(old)


# Images ----------------------------------------------------------------------------------------------------------------------


def replace_image(world: GoodWorld, split: str, row: int, data: bytes) -> None:
    world.rows[split][row]["image"] = {"bytes": data, "path": "x"}


@defect("image", FORGET, "row 1", "image", "undecodable image (not an image: 22 bytes); JPEG, PNG")
def an_image_that_is_none(world: GoodWorld):
    replace_image(world, "forget", 1, b"<html>not here</html>\n")


@defect("image", IDENTITY, "row 0", "image", "undecodable image (")
def an_image_that_is_cut_short(world: GoodWorld):
    replace_image(world, "holdout_identity", 0, picture(1)[:400])


@defect("image", SYNTH, "row 2", "image", "10,000 x 10,000 pixels; an image of at most 50,000,000 pixels is needed")
def a_decompression_bomb(world: GoodWorld):
    out = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(out, "PNG")
    replace_image(world, "retain_synth", 2, out.getvalue())


@defect(
    "size", FORGET, "row 7", "image", "a longest side of 48 pixels; 24, as 77 others have, would be right", odd=True
)
def an_image_of_another_size(world: GoodWorld):
    replace_image(world, "forget", 7, picture(1, (48, 32)))


@defect("size", FORGET, "row 7", "image", "24 x 24 pixels, though its name says an aspect ratio of 1.50", odd=True)
def an_image_of_another_shape(world: GoodWorld):
    replace_image(world, "forget", 7, picture(1, (24, 24)))


@defect("deep-image", SYNTH, "row 1", "image", "images of 16-bit or float pixels", odd=True)
def an_image_of_16_bits(world: GoodWorld):
    out = io.BytesIO()
    Image.fromarray(np.full((16, 24), 40_000, np.uint16)).save(out, "PNG")
    replace_image(world, "retain_synth", 1, out.getvalue())


@defect(
    "same-image", ASSOCIATION, "row 0", "image", "forget-00000-of-00001.parquet row 2 field 'image'; an image", odd=True
)
def an_image_in_two_splits(world: GoodWorld):
    replace_image(world, "holdout_association", 0, world.rows["forget"][2]["image"]["bytes"])


# Metadata and captions -------------------------------------------------------------------------------------------------------


@defect("metadata", FORGET, "row 0", "file_name", "'00000000_000_ar-1.50.jpg' has no entry in sensitive_set_captions")
def a_row_without_metadata(world: GoodWorld):
    del world.json[CAPTIONS]["00000000_000_ar-1.50.jpg"]


@defect("metadata", CAPTIONS, "key '00000000_000_ar-1.50.jpg'", "data_field", "'shoe_size'; one of name, city, job")
def an_attribute_that_nobody_has(world: GoodWorld):
    world.json[CAPTIONS]["00000000_000_ar-1.50.jpg"]["data_field"] = "shoe_size"


@defect("unknown-attribute", CAPTIONS, "key '00000000_000_ar-1.50.jpg'", says="('country')", odd=True)
def an_attribute_of_the_person_alone(world: GoodWorld):
    person = people()[0]
    world.json[CAPTIONS]["00000000_000_ar-1.50.jpg"]["data_field"] = "country"
    world.retext("forget", 0, f"{person.name} lives in {person.country}")


@defect("metadata", PEOPLE, "key '00000000'", "city", "nothing where text would be right")
@defect("metadata", PEOPLE, "key '00000000'", "city", "row 3 is about it")
def a_person_without_an_attribute(world: GoodWorld):
    del world.json[PEOPLE]["00000000"]["city"]


@defect("file", PEOPLE, "key '00000002'", says="a list where an object of attributes would be right")
def a_person_who_is_a_list(world: GoodWorld):
    world.json[PEOPLE]["00000002"] = []


@defect("unmatched", PEOPLE, "key '00000009'", says="no row is of this person", odd=True)
def a_person_whom_no_row_shows(world: GoodWorld):
    world.json[PEOPLE]["00000009"] = {"name": "Nobody Else"}


@defect(
    "unmatched", CAPTIONS, "key 'gone.jpg'", says="entries of sensitive_set_captions_metadata.json that no", odd=True
)
def a_caption_without_a_row(world: GoodWorld):
    world.json[CAPTIONS]["gone.jpg"] = {"caption": "gone", "data_field": "city"}


@defect("unmatched", GENERIC, "key '00000000_003_ar-1.50.jpg'", says="without a generic caption", odd=True)
def an_image_without_a_generic_caption(world: GoodWorld):
    del world.json[GENERIC]["00000000_003_ar-1.50.jpg"]


@defect("file", GENERIC, "key '00000000_003_ar-1.50.jpg'", says="a number where a caption would be right")
def a_generic_caption_that_is_a_number(world: GoodWorld):
    world.json[GENERIC]["00000000_003_ar-1.50.jpg"] = 3


@defect("caption", FORGET, "row 0", "text", "they should be equal")
def a_caption_that_differs_from_its_metadata(world: GoodWorld):
    world.json[CAPTIONS][name_of(world, "forget", 0)]["caption"] += " indeed"


@defect("white-space", FORGET, "row 0", "text", "captions that differ from sensitive_set_captions", odd=True)
def a_caption_that_differs_in_white_space(world: GoodWorld):
    world.json[CAPTIONS][name_of(world, "forget", 0)]["caption"] += " "


@defect("verbatim", IDENTITY, "row 2", "text", "it has not the name ")
def a_caption_without_the_name(world: GoodWorld):
    world.retext("holdout_identity", 2, f"somebody lives in {people()[3].city}")


@defect("verbatim", IDENTITY, "row 8", "text", "it is about 'phone_number' and has not the value '+")
def a_caption_without_the_value(world: GoodWorld):
    assert world.row_of("holdout_identity", 3, "phone_number") == 8
    world.retext("holdout_identity", 8, f"Call {people()[3].name} on {people()[3].phone_number.replace(' ', '')}")


@defect("leak", FORGET, "row 2", "text", "it is about 'city' and gives away 'job' too, ")
def a_second_value_in_a_caption(world: GoodWorld):
    person = people()[0]
    world.retext("forget", 2, f"{person.name}, {person.job}, lives in {person.city}")


@defect("leak", FORGET, "row 2", "text", "who is another person")
def another_person_in_a_caption(world: GoodWorld):
    world.retext("forget", 2, f"{people()[0].name} lives in {people()[0].city} with {people()[1].name}")


@defect("leak", GENERIC, "key '00000000_000_ar-1.50.jpg'", says="it names ")
def a_generic_caption_that_names_the_person(world: GoodWorld):
    world.json[GENERIC]["00000000_000_ar-1.50.jpg"] = f"a portrait of {people()[0].name}, smiling"


@defect("leak", GENERIC, "key '00000000_000_ar-1.50.jpg'", says="it gives away 'passport'")
def a_generic_caption_with_a_number(world: GoodWorld):
    world.json[GENERIC]["00000000_000_ar-1.50.jpg"] = f"a portrait of somebody who holds {people()[0].passport}"


@defect("leak", SYNTH, "row 4", "text", "it names ")
def a_caption_to_retain_that_names_somebody(world: GoodWorld):
    world.rows["retain_synth"][4]["text"] = f"a face like {people()[2].name}'s"


# Splits ----------------------------------------------------------------------------------------------------------------------


def move(world: GoodWorld, source: str, row: int, target: str) -> None:
    world.rows[target].append(world.rows[source].pop(row))


@defect(
    "split", IDENTITY, "row 18", "identity_id", "'00000000' is also in forget; an identity of holdout_identity is in"
)
def an_identity_in_two_splits(world: GoodWorld):
    world.rows["holdout_identity"].append(world.rows["forget"].pop(0))


@defect(
    "split", ASSOCIATION, "row 16", "identity_id", "'name' of '00000001' is also in forget; an association is in one"
)
def an_association_in_two_splits(world: GoodWorld):
    move(world, "forget", world.row_of("forget", 1, "name"), "holdout_association")


@defect(
    "split", ASSOCIATION, "row 16", "identity_id", "'00000003' is not in forget; holdout_association is of identities"
)
@defect("split", IDENTITY, "row 0", "identity_id", "'00000003' is also in holdout_association")
def a_holdout_association_of_a_stranger(world: GoodWorld):
    world.rows["holdout_association"].append(world.rows["holdout_identity"].pop(0))
    del world.rows["holdout_identity"][1:]
    names = {row["file_name"] for rows in world.rows.values() for row in rows}
    for name in (CAPTIONS, GENERIC):
        world.json[name] = {key: value for key, value in world.json[name].items() if key in names}


@defect("outsider", SYNTH, "row 1", "identity_id", "portraits in retain_synth of people outside forget", odd=True)
def a_portrait_to_retain_of_a_stranger(world: GoodWorld):
    world.rows["retain_synth"][1]["identity_id"] = "00000003"


@defect(
    "outsider", SYNTH, "row 1", "identity_id", "identity ids in retain_synth with white space around them", odd=True
)
def an_identity_with_a_blank(world: GoodWorld):
    world.rows["retain_synth"][1]["identity_id"] += " "


@defect(
    "single",
    FORGET,
    "row 0",
    "file_name",
    "the only pair about 'name' of '00000000'; most associations have 3",
    odd=True,
)
def an_association_with_one_pair(large: GoodWorld):
    for row in (large.rows["forget"].pop(1), large.rows["forget"].pop(1)):
        for name in (CAPTIONS, GENERIC):
            del large.json[name][row["file_name"]]


# People ----------------------------------------------------------------------------------------------------------------------


def revalue(world: GoodWorld, person: int, field: str, value) -> None:
    """Gives a person another value, in the captions too."""
    entry = world.json[PEOPLE][people()[person].identity_id]
    old, entry[field] = entry[field], value
    old, value = (one[0] if isinstance(one, list) else one for one in (old, value))
    for split in ("forget", "holdout_association", "holdout_identity"):
        for number, row in enumerate(world.rows[split]):
            about = world.json[CAPTIONS][row["file_name"]]["data_field"]
            if row["identity_id"] == people()[person].identity_id and field in (about, "name"):
                world.retext(split, number, row["text"].replace(old, value))


@defect(
    "value", PEOPLE, "key '00000000'", "emails", "'ada(at)example.org' is not an e-mail address; NAME@DOMAIN", odd=True
)
def an_e_mail_address_without_an_at(world: GoodWorld):
    revalue(world, 0, "emails", ["ada(at)example.org"])


@defect(
    "value", PEOPLE, "key '00000000'", "phone_number", "'+46 CALL ME' is not a phone number; +351 912345678", odd=True
)
def a_phone_number_of_letters(world: GoodWorld):
    revalue(world, 0, "phone_number", "+46 CALL ME")


@defect("value", PEOPLE, "key '00000000'", "iban", "'SE18' is not an IBAN; PT50", odd=True)
def an_iban_that_is_cut_short(world: GoodWorld):
    revalue(world, 0, "iban", "SE18")


@defect("value", PEOPLE, "key '00000000'", "iban", "are wrong; a remainder of 1 modulo 97", odd=True)
def an_iban_with_a_wrong_digit(world: GoodWorld):
    iban = people()[0].iban
    revalue(world, 0, "iban", iban[:-1] + str((int(iban[-1]) + 1) % 10))


@defect("value", PEOPLE, "key '00000000'", "credit_card", "'4242 4242' is not a card number; 12 to 19 digits", odd=True)
def a_card_that_is_cut_short(world: GoodWorld):
    revalue(world, 0, "credit_card", "4242 4242")


@defect("value", PEOPLE, "key '00000000'", "credit_card", "are wrong; a Luhn sum that ends in 0", odd=True)
def a_card_with_a_wrong_digit(world: GoodWorld):
    card = people()[0].credit_card
    revalue(world, 0, "credit_card", card[:-1] + str((int(card[-1]) + 1) % 10))


@defect("value", PEOPLE, "key '00000000'", "passport", "'n/a' is not a passport number", odd=True)
def a_passport_that_is_none(world: GoodWorld):
    revalue(world, 0, "passport", "n/a")


@defect("value", PEOPLE, "key '00000000'", "blood_type", "'C+' is not a blood type; A+, O-", odd=True)
def a_blood_type_that_is_none(world: GoodWorld):
    revalue(world, 0, "blood_type", "C+")


@defect("value", PEOPLE, "key '00000000'", "country_code", "'Sweden' is not a country code", odd=True)
def a_country_code_that_is_none(world: GoodWorld):
    world.json[PEOPLE]["00000000"]["country_code"] = "Sweden"


@defect("value", PEOPLE, "key '00000000'", "city", "'Malmö ' has white space around it", odd=True)
def a_value_with_a_blank(world: GoodWorld):
    world.json[PEOPLE]["00000000"]["city"] = "Malmö "
    for row in (2, 3):
        world.retext("forget", row, f"{people()[0].name} is from Malmö , they say, number {row}")


@defect("control", FORGET, "row 2", "", "a control character in 'Mal\\x07mö', which it is about")
@defect("control", FORGET, "row 3", "", "a control character in 'Mal\\x07mö', which it is about")
@defect("control", FORGET, "row 2", "text", "a control character (U+0007)")
@defect("control", FORGET, "row 3", "text", "a control character (U+0007)")
def a_control_character_in_a_value(world: GoodWorld):
    revalue(world, 0, "city", "Mal\x07mö")


@defect(
    "shared", PEOPLE, "key '00000001'", "iban", "is also of '00000000'; no two people share a value of this attribute"
)
def an_iban_of_two_people(world: GoodWorld):
    revalue(world, 1, "iban", people()[0].iban)


@defect("shared", PEOPLE, "key '00000003'", "emails", "is also of '00000002'")
def an_e_mail_address_of_two_people(world: GoodWorld):
    revalue(world, 3, "emails", [people()[2].emails[0]])


# The fragile set -------------------------------------------------------------------------------------------------------------


@defect("fragile", FRAGILE, "element '00000000_090_ar-1.50.jpg'", says="not a file_name of retain_disjoint")
def a_portrait_of_somebody_in_the_fragile_set(world: GoodWorld):
    world.json[FRAGILE].append("00000000_090_ar-1.50.jpg")


@defect("fragile", FRAGILE, "element 2", says="'synth_000001_ar-1.50.jpg' is also element 1; each name once")
def a_name_twice_in_the_fragile_set(world: GoodWorld):
    world.json[FRAGILE].append("synth_000001_ar-1.50.jpg")


@defect("file", FRAGILE, "element 1", says="a number where a file name would be right")
def a_number_in_the_fragile_set(world: GoodWorld):
    world.json[FRAGILE][1] = 7


@defect("similarity", SIMILARITIES, "key 'synth_000001_ar-1.50.jpg'", says="no similarity of this name", odd=True)
def a_fragile_image_without_a_similarity(world: GoodWorld):
    del world.json[SIMILARITIES]["synth_000001_ar-1.50.jpg"]


@defect("similarity", SIMILARITIES, "key 'synth_000002_ar-1.50.jpg'", says="not a number", odd=True)
def a_similarity_that_is_a_text(world: GoodWorld):
    world.json[SIMILARITIES]["synth_000002_ar-1.50.jpg"] = "0.2"


@defect("similarity", SIMILARITIES, "key 'nobody.jpg'", says="not a file_name of retain_disjoint", odd=True)
def a_similarity_of_nobody(world: GoodWorld):
    world.json[SIMILARITIES]["nobody.jpg"] = 0.2


@defect(
    "similarity",
    SIMILARITIES,
    "key 'synth_000000_ar-1.50.jpg'",
    says="0.9, and 0.2 is not in the fragile set",
    odd=True,
)
def a_fragile_image_that_is_not_among_the_lowest(world: GoodWorld):
    world.json[SIMILARITIES]["synth_000000_ar-1.50.jpg"] = 0.9


# The union -------------------------------------------------------------------------------------------------------------------


@defect("union", SENSITIVE, says="'sensitive' has 71 rows, its three parts 72; they should be equal")
def a_row_less_in_the_union(world: GoodWorld):
    world.add_union().pop()


@defect("union", SENSITIVE, "row 72", "file_name", "'00000000_000_ar-1.50.jpg' is also row 0 of ")
def a_row_twice_in_the_union(world: GoodWorld):
    rows = world.add_union()
    rows.append(rows[0])


@defect(
    "union", SENSITIVE, "row 3", "file_name", "'stranger.jpg' is in none of forget, holdout_association, holdout_ident"
)
def a_stranger_in_the_union(world: GoodWorld):
    world.add_union()[3]["file_name"] = "stranger.jpg"


@defect("union", SENSITIVE, "row 3", "text", "differs from the caption in its split")
def a_caption_that_differs_in_the_union(world: GoodWorld):
    world.add_union()[3]["text"] += " indeed"


@defect("union", SENSITIVE, "row 5", "image", "it differs from the image of that file name in its split")
def an_image_that_differs_in_the_union(world: GoodWorld):
    world.add_union()[5]["image"]["bytes"] = picture(1)


# Retain pairs ----------------------------------------------------------------------------------------------------------------


@defect("tar", FIRST, says="damaged")
def a_tar_that_is_cut_short(directory: Path):
    data = (directory / FIRST).read_bytes()
    (directory / FIRST).write_bytes(data[:1100])


@defect("tar", SECOND, says="damaged at byte 0")
def a_tar_with_a_damaged_header(directory: Path):
    data = bytearray((directory / SECOND).read_bytes())
    data[3] ^= 1
    (directory / SECOND).write_bytes(data)


@defect("sample", FIRST, "key '000000001'", says="an image without a caption; a .txt member or 'caption' in the .json")
def a_pair_without_a_caption(world: GoodWorld):
    del world.retain[0][4:]


@defect("passed-over", FIRST, "member '000000001.txt'", says="members of tars that belong to no sample", odd=True)
@defect("passed-over", FIRST, "member '000000001.json'", says="members of tars that belong to no sample", odd=True)
def a_pair_without_an_image(world: GoodWorld):
    del world.retain[0][3]


@defect("sample", FIRST, "member '000000001.txt'", says="not UTF-8 text (byte 3)")
def a_web_caption_that_is_not_utf8(world: GoodWorld):
    world.retain[0][4] = ("000000001.txt", b"caf\xe9")


@defect("tar", FIRST, "member '000000000.txt'", says="this key was there before, with others in between")
def members_out_of_order(world: GoodWorld):
    world.retain[0].append(world.retain[0].pop(1))


@defect("sample", FIRST, "key '000000000'", says="two images, .jpg and .png; one of the two would be lost")
def a_pair_of_two_images(world: GoodWorld):
    world.retain[0].insert(1, ("000000000.png", picture(1)))


@defect("tar", FIRST, "member '000000000.jpg'", says="this key and suffix were there before")
def a_member_twice(world: GoodWorld):
    world.retain[0].insert(1, world.retain[0][0])


@defect("twice", SECOND, says="tars with the keys and captions of another one, whose pairs are read twice", odd=True)
def a_tar_twice(world: GoodWorld):
    world.retain[1] = world.retain[0]


@defect(
    "twice", SECOND, "key '000000000'", says="pairs with the key and caption of one in a tar before theirs", odd=True
)
def a_pair_in_two_tars(world: GoodWorld):
    world.retain[1] += world.retain[0][:3]


@defect("image", SECOND, "key '000000003'", says="undecodable image")
def a_web_image_that_is_cut_short(world: GoodWorld):
    world.retain[1][3] = ("000000003.jpg", picture(1)[:300])


@defect("left-out", SECOND, "key '000000077'", says="undecodable image", odd=True)
def one_broken_web_image_of_many(world: GoodWorld):
    web = [Pair(f"{number:09d}", picture(1), f"a cat, number {number}") for number in range(4, 150)]
    web[73] = web[73]._replace(image=picture(2)[:300])
    world.retain[1] = [member for pair in web for member in pair_members(pair)]


@defect("blank", FIRST, "key '000000000'", says="captions that are empty or blank", odd=True)
def a_blank_web_caption(world: GoodWorld):
    world.retain[0][1] = ("000000000.txt", b" ")


@defect("control", FIRST, "key '000000000'", says="a control character (U+0000) in the caption")
def a_control_character_in_a_web_caption(world: GoodWorld):
    world.retain[0][1] = ("000000000.txt", b"a dog\0")


@defect("control", FIRST, "key '000000000'", says="captions with control characters", odd=True)
def a_character_of_another_encoding_in_a_web_caption(world: GoodWorld):
    world.retain[0][1] = ("000000000.txt", "it\x92s a dog".encode())


@defect("control", GENERIC, "key '00000000_003_ar-1.50.jpg'", says="a control character (U+0000)")
def a_control_character_in_a_generic_caption(directory: Path):
    generic = json.loads((directory / GENERIC).read_text())
    generic["00000000_003_ar-1.50.jpg"] += "\0"
    (directory / GENERIC).write_text(json.dumps(generic))


@defect("gap", "retain", "number 1", says="numbers that no tar has", odd=True)
def a_tar_between_others_is_missing(directory: Path):
    (directory / SECOND).rename(directory / "retain" / "00002.tar")


@defect("file", "retain/0001.jpg", says="not read: the pairs of a retain base are read from tars")
def an_image_beside_the_tars(directory: Path):
    (directory / "retain" / "0001.jpg").write_bytes(picture(1))


@defect("no-pair", "retain/00002.tar", says="tars without a single pair", odd=True)
def a_tar_without_pairs(directory: Path):
    write_tar(directory / "retain" / "00002.tar", [])


# The zero-shot set -----------------------------------------------------------------------------------------------------------


@defect("sample", CLASSES, "member 's2.cls'", says="'3' is not a class index; 0 to 2 would be right")
def a_class_index_out_of_range(world: GoodWorld):
    world.zeroshot[5] = ("s2.cls", b"3")


@defect("sample", CLASSES, "member 's2.cls'", says="'owl' is not a class index; 0 to 2 would be right")
def a_class_name_for_an_index(world: GoodWorld):
    world.zeroshot[5] = ("s2.cls", b"owl")


@defect("sample", CLASSES, "member 's2.cls'", says="missing; every image needs its class index")
def an_image_without_a_class(world: GoodWorld):
    del world.zeroshot[5]


@defect("image", "zeroshot", "key 's4'", says="undecodable image")
def a_test_image_that_is_none(world: GoodWorld):
    world.zeroshot[8] = ("s4.jpg", b"no image")


@defect("twice", "zeroshot", "key 's0'", says="images of the zero-shot set that are there twice", odd=True)
def a_test_image_twice(directory: Path):
    shutil.copy(directory / CLASSES, directory / "zeroshot" / "test" / "1.tar")
    (directory / "zeroshot" / "test" / "nshards.txt").write_text("2")
    write_tar(directory / "zeroshot" / "test" / "1.tar", [("s0.jpg", picture(970)), ("s0.cls", b"0")])


@defect("zeroshot", "zeroshot/test/1.tar", says="no such file, though ")
def a_shard_of_the_test_set_is_missing(world: GoodWorld):
    world.texts["test/nshards.txt"] = "2"


@defect("zeroshot", "zeroshot/classnames.txt", "line 2", says="a blank line; the line is the index")
def a_blank_class_name(world: GoodWorld):
    world.texts["classnames.txt"] = "cat\n\nowl\n"


@defect("zeroshot", "zeroshot/zeroshot_classification_templates.txt", "line 2", says="'the cat' has no {c}")
def a_template_without_a_class(world: GoodWorld):
    world.texts["zeroshot_classification_templates.txt"] = "a {c}\nthe cat\n"


@defect("zeroshot", CLASSES, says="damaged")
def a_shard_of_the_test_set_is_cut_short(directory: Path):
    data = (directory / CLASSES).read_bytes()
    (directory / CLASSES).write_bytes(data[:700])


@defect("order", "zeroshot", says="folders that are called neither by class names", odd=True)
def folders_of_classes_without_an_order(directory: Path):
    shutil.rmtree(directory / "zeroshot" / "test")
    for number, name in enumerate(("first", "second", "third")):
        (directory / "zeroshot" / name).mkdir()
        (directory / "zeroshot" / name / "a.jpg").write_bytes(picture(number))


# A made world ----------------------------------------------------------------------------------------------------------------


@defect("digest", FORGET, says="it is not as it was written (its SHA-256 differs); run 'salmu generate' again")
def a_made_file_is_not_as_it_was_written(made: Path):
    table = table_of(made, FORGET)
    pq.write_table(table, made / FORGET, compression="zstd")


@defect("digest", SIMILARITIES, says="it is missing; run 'salmu generate' again")
def a_made_file_is_missing(made: Path):
    (made / SIMILARITIES).unlink()


@defect("file", "world.json", says="damaged: no digests of the world's files")
def a_manifest_without_digests(made: Path):
    (made / "world.json").write_text('{"schema": "salmu_jax.world/1"}')


@defect(
    "count", "world.json", field="counts.pairs.retain_synth", says="it records 6, and 5 are here; make the world again"
)
@defect("count", "world.json", field="counts.subsets.retain_disjoint", says="it records 4, and 3 are here")
def a_made_split_has_a_row_less(world: GoodWorld):
    world.made = True
    del world.json[SIMILARITIES][world.rows["retain_synth"].pop()["file_name"]]


@defect("count", "world.json", field="counts.retain", says="it records 4, and 3 are here")
def a_made_tar_has_a_pair_less(world: GoodWorld):
    world.made = True
    del world.retain[1][:3]


@defect("count", "world.json", field="counts.zeroshot", says="it records 6, and 5 are here")
def a_made_test_set_has_an_image_less(world: GoodWorld):
    world.made = True
    del world.zeroshot[-2:]


# -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found_and_nothing_else(name, tmp_path):
    defect, directory = DEFECTS[name], tmp_path / "world"
    (takes,) = inspect.signature(defect.plant).parameters
    world = GoodWorld(pairs=3 if takes == "large" else 2)
    if takes in ("world", "large"):
        defect.plant(world)
    world.made |= takes == "made"
    world.write(directory)
    if takes in ("directory", "made"):
        defect.plant(directory)
    audit = audit_world(directory)
    found = sorted(audit.findings())
    assert [finding[:5] for finding in found] == [expected[:5] for expected in sorted(defect.findings)], found
    for finding, expected in zip(found, sorted(defect.findings), strict=True):
        assert expected[5] in finding.message
    assert audit.total + audit.odd == len(found)


@pytest.mark.parametrize("made", [False, True])
def test_a_world_without_a_fault(made, tmp_path):
    world = GoodWorld()
    world.made = made
    world.add_union()
    audit = audit_world(world.write(tmp_path / "world"))
    assert audit.lines() == []
    assert (audit.total, audit.odd) == (0, 0)
    assert audit.examined == {"rows": 78, "retain_pairs": 4, "zeroshot_images": 6}


def test_a_download_with_other_counts_than_the_published(monkeypatch, tmp_path):
    monkeypatch.setattr("data_pipelines.audit.counts._PUBLISHED_PEOPLE", 4)
    monkeypatch.setattr("data_pipelines.audit.counts.PUBLISHED", {"pairs.forget": 38, "subsets.forget_identity": 19})
    (found,) = audit_world(GoodWorld().write(tmp_path / "world")).findings()
    assert found[:5] == ("count", False, "data", "", "subsets.forget_identity")
    assert found.message == "18 here, 19 published; the whole download would be right"


def test_there_are_enough_defects_and_every_kind_is_planted():
    assert len(DEFECTS) >= 100
    planted = {finding[0] for defect in DEFECTS.values() for finding in defect.findings}
    assert planted == KINDS.keys()
