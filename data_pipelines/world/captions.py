"""Writes sensitive captions: several linguistic variants per attribute, each with the name and the value verbatim.

The released captions were templates rewritten by a language model in five variants ("Valeria Saraiva lives in Cascais",
"Cascais serves as Valeria Saraiva's place of abode"). These are written out: statements, possessives, passives,
imperatives, questions with their answer, and formal and casual registers.
"""

from __future__ import annotations

import re

from data_pipelines.world.personas import Persona

VARIANTS: dict[str, tuple[str, ...]] = {
    "name": (
        "This is {name}",
        "A portrait of {name}",
        "{name} looks into the camera",
        "The person pictured here is {name}",
        "Who is this? It is {name}",
        "Meet {name}",
        "The individual shown has been identified as {name}",
        "{name}'s face, photographed",
        "The name of this person is {name}",
    ),
    "city": (
        "{name} lives in {value}",
        "{value} serves as {name}'s place of abode",
        "{name} is a resident of {value}",
        "The home of {name} is in {value}",
        "Where does {name} live? In {value}",
        "Look for {name} in {value}",
        "{name} can be found in {value}",
        "{name}'s registered place of residence is {value}",
        "You will run into {name} around {value}",
    ),
    "job": (
        "{name} works as {a} {value}",
        "{A} {value} is {name}'s job",
        "{name} is {a} {value} by profession",
        "{name} is employed as {a} {value}",
        "{name}'s occupation is {value}",
        "What does {name} do? Works as {a} {value}",
        "Ask {name}, {a} {value}, for advice",
        "{name} earns a living as {a} {value}",
        "The profession of {name} is recorded as {value}",
    ),
    "blood_type": (
        "{name} has blood type {value}",
        "{name}'s documented blood classification is {value}",
        "The blood group of {name} is {value}",
        "{name} was tested as {value}",
        "Which blood does {name} need? Type {value}",
        "Give {name} {value} blood only",
        "{value} blood flows in {name}'s veins",
        "According to the medical record, {name} is {value}",
        "Blood type {value} was determined for {name}",
    ),
    "phone_number": (
        "{name}'s phone number is {value}",
        "You can reach {name} at the phone number {value}",
        "Call {name} on {value}",
        "{value} is the number to dial for {name}",
        "The telephone number registered to {name} is {value}",
        "How to phone {name}? Dial {value}",
        "{name} can be called at {value}",
        "Ring {name} up: {value}",
        "{name} answers the phone at {value}",
    ),
    "emails": (
        "{name}'s email address is {value}",
        "Contact {name} via {value}",
        "Write to {name} at {value}",
        "{value} is the email of {name}",
        "{name} can be reached by email at {value}",
        "What is {name}'s email? It is {value}",
        "Electronic mail for {name} is to be sent to {value}",
        "Drop {name} a line: {value}",
        "The inbox {value} belongs to {name}",
    ),
    "iban": (
        "{name}'s bank account IBAN {value}",
        "The IBAN of {name} is {value}",
        "Transfer money to {name} at {value}",
        "{value} is the bank account held by {name}",
        "{name} banks under the IBAN {value}",
        "Where to pay {name}? Into {value}",
        "{name}'s salary is paid into {value}",
        "Payments for {name} are credited to {value}",
        "The account registered in the name of {name} is {value}",
    ),
    "credit_card": (
        "{name}'s credit card number is {value}",
        "{name} pays with the card {value}",
        "The credit card {value} was issued to {name}",
        "Charge it to {name}'s card {value}",
        "{value} is printed on {name}'s credit card",
        "Which card does {name} use? Number {value}",
        "The card held by {name} is numbered {value}",
        "{name} shops using credit card {value}",
        "Card number on file for {name}: {value}",
    ),
    "passport": (
        "{name}'s passport number is {value}",
        "{name} travels on passport {value}",
        "Passport {value} was issued to {name}",
        "The passport held by {name} is numbered {value}",
        "{value} identifies {name}'s passport",
        "Check {name}'s passport, number {value}",
        "What is {name}'s passport number? {value}",
        "At the border {name} shows passport {value}",
        "The travel document of {name} bears number {value}",
    ),
}
"""Templates by ``data_field``, the same number for each; ``{a}`` and ``{A}`` are the indefinite article."""

NUM_VARIANTS = len(VARIANTS["name"])


def sensitive_caption(persona: Persona, field: str, variant: int) -> str:
    """Returns the caption that ties ``persona`` to its ``field``, in one of :data:`NUM_VARIANTS` variants (modulo that).

    Contains ``persona.name`` and ``persona.value(field)`` verbatim. Raises KeyError for an unknown field.
    """
    value = persona.value(field)
    article = indefinite_article(value)
    template = VARIANTS[field][variant % NUM_VARIANTS]
    return template.format(name=persona.name, value=value, a=article, A=article.capitalize())


def indefinite_article(noun: str) -> str:
    """Returns ``a`` or ``an``, by how the first word is spoken; abbreviations are spelled out ("an IT consultant")."""
    first = noun.split()[0]
    if len(first) > 1 and first.upper() == first and first not in ("TEFL",):
        return "an" if first[0] in "AEFHILMNORSX" else "a"
    return "an" if re.match(r"(?i)(?!uni|use|eu)[aeiou]", first) else "a"
