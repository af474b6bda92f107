"""Lists where the people of the full-size data set live: 65 countries, their cities, and what their numbers look like.

What a person looks like (a region of appearance, from the portrait) gives the country: see ``allotment.py``. The small
made world has a list of its own (``data_pipelines/world/countries.py``), whose results are published; where both have a
country, its numbers have the same patterns, which are explained there.

- ``_LIVES``: which share of a country's people look so, in percent, and where their names come from: faker locales, or
  lists of ours (``names.py``). Countries with large communities of several origins have several lines; the shares are
  approximate. Where faker has no list for a country, a neighbour's of the same language is used.
- ``_NUMBERS``: calling code, telephone numbers, BBAN, passport. Numbers for fiction are used where a regulator reserves
  them (the North American 555-01XX, ACMA's 5550 and 7010 XXXX); elsewhere there is a run of zeros, seldom assigned.
- A country without a BBAN has no IBANs (SWIFT IBAN registry). Its people hold an account in one of the countries after ``@``,
  which have them and with which many people of the country have ties.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.world.countries import COUNTRIES, Country

PLACES_FILE = Path(__file__).parent / "places.txt"
REGIONS = ("europe", "middle_east", "africa", "east_asia", "south_asia", "latin_america")

_NUMBERS = """
US|United States|1|21255501## 31055501## 31255501## 41555501## 61755501## 71355501## 20655501## 30555501##||#########|@GB IE
RU|Russia|7|9000000###|0000000000000000000##########|#########
UA|Ukraine|380|50000####|000000000000000##########|AA######
BG|Bulgaria|359|87000####|TEST000000########|#########
GR|Greece|30|690000####|0000000000000##########|AA#######
NO|Norway|47|4000####|0001######=|AAA#####
IE|Ireland|353|85000####|TEST000000########|AA#######
CA|Canada|1|41655501## 51455501## 60455501## 40355501## 61355501##||AA######|@GB FR
AU|Australia|61|25550#### 27010#### 35550#### 37010#### 75550#### 85550####||PA#######|@GB IE
IR|Iran|98|910000####||A########|@AE TR
DZ|Algeria|213|55000####||#########|@FR ES
MA|Morocco|212|60000####||AA#######|@FR ES
IQ|Iraq|964|790000####|TEST00000##########|A########
AZ|Azerbaijan|994|50000####|TEST0000000000##########|C########
NG|Nigeria|234|802000####||A########|@GB DE
KE|Kenya|254|70000####||AA#######|@GB DE
TZ|Tanzania|255|71000####||AA######|@GB AE
GH|Ghana|233|24000####||G#######|@GB NL
ZA|South Africa|27|71000####||A########|@GB NL
AO|Angola|244|92000####||N#######|@PT
MZ|Mozambique|258|84000####||##AA#####|@PT
ET|Ethiopia|251|91000####||EP#######|@IT AE
CN|China|86|1300000####||EA#######|@DE FR IT
JP|Japan|81|901000####||AA#######|@DE GB
KR|South Korea|82|1020000###||M########|@DE GB
VN|Vietnam|84|91000####||A#######|@FR CZ
TH|Thailand|66|81000####||AA#######|@CH SE
ID|Indonesia|62|8120000####||A#######|@NL
TW|Taiwan|886|91000####||#########|@CH DE
IN|India|91|900000####||A#######|@GB AE
BD|Bangladesh|880|171000####||AA#######|@GB AE IT
LK|Sri Lanka|94|71000####||N#######|@GB AE
NP|Nepal|977|984000####||########|@GB AE
MX|Mexico|52|552000####||G########|@ES
CO|Colombia|57|300000####||AA######|@ES
AR|Argentina|54|9112000####||AAA######|@ES IT
CL|Chile|56|92000####||F########|@ES
PE|Peru|51|91000####||#########|@ES
"""

# region | country | percent of its people | sources of names
_LIVES = """
europe|US|60|en_US
europe|RU|100|ru_RU
europe|DE|88|de_DE
europe|GB|85|en_GB
europe|FR|88|fr_FR
europe|IT|100|it_IT
europe|ES|92|es_ES
europe|UA|100|uk_UA
europe|PL|100|pl_PL
europe|RO|100|ro_RO
europe|NL|88|nl_NL
europe|BE|100|nl_BE fr_BE
europe|CZ|100|cs_CZ
europe|GR|100|el_GR
europe|PT|100|pt_PT
europe|SE|100|sv_SE
europe|HU|100|hu_HU
europe|AT|100|de_AT
europe|CH|100|de_CH fr_CH
europe|BG|100|bulgarian
europe|DK|100|da_DK
europe|FI|100|fi_FI
europe|SK|100|sk_SK
europe|NO|100|no_NO
europe|IE|100|en_IE
europe|HR|100|hr_HR
europe|CA|70|en_US fr_CA
europe|AU|80|en_GB
europe|ZA|8|en_GB
middle_east|TR|100|tr_TR
middle_east|IR|100|persian
middle_east|EG|100|arabic
middle_east|DZ|100|fr_DZ
middle_east|MA|100|fr_DZ
middle_east|SA|100|arabic
middle_east|IQ|100|arabic
middle_east|AZ|100|az_AZ
middle_east|AE|40|arabic
middle_east|TN|100|fr_DZ
middle_east|FR|8|fr_DZ
middle_east|DE|4|tr_TR
africa|NG|100|yo_NG ig_NG ha_NG
africa|ET|100|ethiopian
africa|TZ|100|sw
africa|KE|100|en_KE
africa|ZA|90|zu_ZA
africa|AO|100|pt_PT
africa|GH|100|tw_GH
africa|MZ|100|pt_PT
africa|US|13|en_US
africa|GB|4|yo_NG tw_GH
east_asia|CN|100|chinese
east_asia|ID|100|id_ID
east_asia|JP|100|ja_JP
east_asia|VN|100|vi_VN
east_asia|TH|100|thai
east_asia|KR|100|korean
east_asia|TW|100|taiwanese
east_asia|MN|100|mongolian
east_asia|US|6|chinese korean vi_VN
east_asia|AU|6|chinese
south_asia|IN|100|en_IN
south_asia|PK|100|pakistani
south_asia|BD|100|bangladeshi
south_asia|NP|100|nepali
south_asia|LK|100|sinhala
south_asia|GB|7|en_IN pakistani
south_asia|CA|7|en_IN
south_asia|AE|50|en_IN pakistani
latin_america|BR|100|pt_BR
latin_america|MX|100|es_MX
latin_america|CO|100|es_CO
latin_america|AR|100|es_AR
latin_america|PE|100|es_CO
latin_america|CL|100|es_CL
latin_america|US|19|es_MX
"""


@dataclass(frozen=True)
class Place:
    """A country: its English name, inhabitants and cities (both in thousands), numbers, and where its people's IBANs are of.

    ``bank_countries`` is the country itself where it has IBANs. ``numbers.bban`` is empty where it has none.
    """

    name: str
    inhabitants: int
    cities: dict[str, int]
    numbers: Country
    bank_countries: tuple[str, ...]


@dataclass(frozen=True)
class Home:
    """Those of a country who look a certain way: how many they are, in thousands, and the sources of their names."""

    region: str
    country_code: str
    inhabitants: float
    names: tuple[str, ...]


def _table(text: str) -> list[list[str]]:
    return [line.split("|") for line in text.strip().splitlines() if not line.startswith("#")]


@functools.cache
def places() -> dict[str, Place]:
    """Returns the 65 countries by ISO 3166-1 alpha-2 code, in the order of ``places.txt``."""
    own: dict[str, tuple[Country, tuple[str, ...]]] = {}
    for code, name, calling_code, phones, bban, passport, *banks in _table(_NUMBERS):
        numbers = Country(name, int(calling_code), tuple(phones.split()), bban, passport, ())
        own[code] = (numbers, tuple(banks[0].removeprefix("@").split()) if banks else (code,))
    found = {}
    for code, inhabitants, listed in _table(PLACES_FILE.read_text(encoding="utf-8")):
        numbers, bank_countries = own[code] if code in own else (COUNTRIES[code], (code,))
        sizes = (entry.rpartition(" ") for entry in listed.split(", "))
        cities = {city: int(size) for city, _, size in sizes}
        found[code] = Place(numbers.name, int(inhabitants), cities, numbers, bank_countries)
    return found


@functools.cache
def homes(region: str) -> tuple[Home, ...]:
    """Returns where people of a region of appearance live. Raises KeyError for a region that is not in :data:`REGIONS`."""
    found = [
        Home(region, code, places()[code].inhabitants * float(percent) / 100, tuple(names.split()))
        for own_region, code, percent, names in _table(_LIVES)
        if own_region == region
    ]
    if not found:
        raise KeyError(region)
    return tuple(found)
