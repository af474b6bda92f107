"""Lists where the people of a made world live: countries, and the cultures that names are drawn from.

A persona's city, telephone prefix, IBAN, passport and ``country_code`` belong to one country, and the name to a
culture that fits the apparent region of the face. Many countries (all of East Asia but Mongolia, India, most of
Africa, Mexico, Argentina, ...) have no IBAN. People of those cultures therefore live, as citizens, in places known for
such a community in a country that has one: a Japanese name in Düsseldorf or São Paulo, an Indian one in Leicester, a
Yoruba one in London.

Patterns, in which ``#`` is a drawn digit and ``A`` (in ``passport``) a drawn letter:

- ``phones``: national numbers without the trunk prefix. Where the regulator reserves ranges for fiction
  (Ofcom, ARCEP, Bundesnetzagentur, PTS), they are from these. Elsewhere the numbers are only plausible, with a run of
  zeros that operators seldom assign; none is meant to be called.
- ``bban``: the part of an IBAN after the check digits (SWIFT IBAN registry). The bank code is ``TEST`` or all
  zeros, which no bank has, so an account belongs to nobody; account numbers are left-padded with zeros, as banks do. ``=``
  stands for national check digits, computed by ``identifiers.py``; other national check digits, if any, are not
  computed.
- ``passport``: the shape of the country's passport numbers, to the best of public knowledge; at most the nine
  characters of ICAO Doc 9303. No range of passport numbers is reserved for fiction.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Country:
    """A country that has IBANs: English name, calling code, and the patterns of its numbers (see the module)."""

    name: str
    calling_code: int
    phones: tuple[str, ...]
    bban: str
    passport: str
    cities: tuple[str, ...]


@dataclass(frozen=True)
class Culture:
    """A source of names (a faker locale, or a key of ``names.LISTS``) and the country and cities its people live in."""

    region: str
    names: str
    country_code: str
    cities: tuple[str, ...]


_COUNTRIES = """
GB|United Kingdom|44|2079460### 1134960### 1214960### 1314960### 1414960### 1614960###|TEST00000000######|#########
DE|Germany|49|3023125### 6990009### 4066969### 2214710### 8999998###|00000000##########|C########
FR|France|33|19900#### 26191#### 35301#### 46571#### 53649####|00000000000##########==|##AA#####
SE|Sweden|46|8465004## 3139006## 4062804## 7017406##|0000000000##########|########
AT|Austria|43|6640000###|000000##########|A#######
CH|Switzerland|41|780000###|0000000##########|A#######
BE|Belgium|32|47000####|000#######==|AA######
NL|Netherlands|31|61000####|TEST0#########|AA######
IT|Italy|39|3470000###|X000000000000##########|YA#######
ES|Spain|34|60000####|00000000==##########|AAA######
PT|Portugal|351|91000####|000000000##########==|AA######
DK|Denmark|45|3210####|0000##########|#########
FI|Finland|358|400000###|000###########|AA#######
EE|Estonia|372|5100####|0000##########00|AA#######
LV|Latvia|371|2000####|TEST000##########|AA#######
PL|Poland|48|50000####|00000000000000##########|AA#######
CZ|Czechia|420|60100####|0000000000##########|########
SK|Slovakia|421|91200####|0000000000##########|AA#######
HU|Hungary|36|20000####|00000000000000##########|AA#######
RO|Romania|40|70200####|TEST000000##########|#########
HR|Croatia|385|91000####|0000000##########|#########
SI|Slovenia|386|3100####|00000########==|AA#######
IS|Iceland|354|6110###|000000############0000|A#######
TR|Türkiye|90|5010000###|000000000000##########|A########
AE|United Arab Emirates|971|50000####|000000000##########|A########
SA|Saudi Arabia|966|51000####|0000000000##########|A########
BH|Bahrain|973|3600####|TEST0000##########|#######
TN|Tunisia|216|2000####|0000000000########==|A######
EG|Egypt|20|1000000###|000000000000000##########|A########
JO|Jordan|962|79000####|TEST000000000000##########|A######
BI|Burundi|257|7900####|00000000000##########==|AA#######
ST|Sao Tome and Principe|239|990####|000000000##########==|A######
MU|Mauritius|230|5250####|TEST000000##########000MUR|#######
MN|Mongolia|976|8800####|000000##########|A#######
BR|Brazil|55|11960000###|0000000000000##########C1|AA######
CR|Costa Rica|506|8300####|00000000##########|A######
DO|Dominican Republic|1|8092010###|TEST0000000000##########|AA#######
GT|Guatemala|502|5100####|TEST0000000000##########|#########
SV|El Salvador|503|7000####|TEST0000000000##########|A########
PK|Pakistan|92|3010000###|TEST000000##########|AA#######
"""

_CITIES = """
GB|London, Leeds, Leicester, Bristol, Birmingham, Edinburgh, Glasgow, Manchester, Norwich, Cardiff, York, Exeter
DE|Berlin, Hamburg, München, Köln, Frankfurt, Stuttgart, Leipzig, Bremen, Dresden, Freiburg, Kiel, Mainz
FR|Paris, Lyon, Marseille, Toulouse, Nantes, Lille, Bordeaux, Rennes, Strasbourg, Grenoble, Dijon, Angers
SE|Stockholm, Göteborg, Malmö, Uppsala, Lund, Umeå, Örebro
AT|Wien, Graz, Linz, Salzburg, Innsbruck, Klagenfurt, Wels
CH|Zürich, Bern, Basel, Luzern, Winterthur, Lausanne, Thun
BE|Brussel, Antwerpen, Gent, Brugge, Leuven, Mechelen, Hasselt
NL|Amsterdam, Utrecht, Rotterdam, Den Haag, Groningen, Delft, Leiden
IT|Roma, Milano, Torino, Bologna, Firenze, Napoli, Genova, Verona, Bari, Trieste, Palermo
ES|Madrid, Barcelona, Valencia, Sevilla, Zaragoza, Bilbao, Granada, Alicante, Vigo, Oviedo, Salamanca
PT|Lisboa, Porto, Coimbra, Braga, Cascais, Faro, Aveiro, Évora
DK|København, Aarhus, Odense, Aalborg, Esbjerg, Roskilde
FI|Helsinki, Tampere, Turku, Oulu, Kuopio, Lahti
EE|Tallinn, Tartu, Pärnu, Narva, Viljandi
LV|Rīga, Liepāja, Jelgava, Ventspils, Valmiera
PL|Warszawa, Kraków, Gdańsk, Wrocław, Poznań, Lublin, Toruń
CZ|Praha, Brno, Ostrava, Plzeň, Olomouc, Liberec
SK|Bratislava, Košice, Žilina, Nitra, Trnava, Prešov
HU|Budapest, Debrecen, Szeged, Pécs, Győr, Eger
RO|București, Cluj-Napoca, Iași, Timișoara, Brașov, Sibiu
HR|Zagreb, Split, Rijeka, Osijek, Zadar, Pula
SI|Ljubljana, Maribor, Celje, Kranj, Koper
IS|Reykjavík, Akureyri, Selfoss, Húsavík
TR|İstanbul, Ankara, İzmir, Bursa, Antalya, Konya, Trabzon, Gaziantep
AE|Dubai, Abu Dhabi, Sharjah, Ajman, Al Ain
SA|Riyadh, Jeddah, Dammam, Medina, Abha, Tabuk
BH|Manama, Muharraq, Riffa, Isa Town
TN|Tunis, Sfax, Sousse, Bizerte, Kairouan, Monastir
EG|Cairo, Alexandria, Giza, Luxor, Aswan, Mansoura
JO|Amman, Irbid, Zarqa, Aqaba, Madaba
BI|Bujumbura, Gitega, Ngozi, Rumonge
ST|São Tomé, Trindade, Neves, Guadalupe
MU|Port Louis, Curepipe, Quatre Bornes, Rose Hill, Mahébourg
MN|Ulaanbaatar, Darkhan, Erdenet, Choibalsan, Khovd
BR|São Paulo, Rio de Janeiro, Salvador, Recife, Curitiba, Manaus, Fortaleza, Brasília
CR|San José, Alajuela, Cartago, Heredia, Liberia
DO|Santo Domingo, La Romana, Puerto Plata, La Vega
GT|Antigua Guatemala, Quetzaltenango, Cobán, Escuintla
SV|San Salvador, Santa Ana, San Miguel, Sonsonate
PK|Lahore, Karachi, Islamabad, Faisalabad, Multan, Peshawar
"""

# region | names | country | cities of that community (empty: any city of the country)
_CULTURES = """
europe|en_GB|GB|
europe|de_DE|DE|
europe|fr_FR|FR|
europe|sv_SE|SE|
europe|de_AT|AT|
europe|de_CH|CH|Zürich, Bern, Basel, Luzern, Winterthur, Thun
europe|nl_BE|BE|
europe|nl_NL|NL|
europe|it_IT|IT|
europe|es_ES|ES|
europe|pt_PT|PT|
europe|da_DK|DK|
europe|fi_FI|FI|
europe|et_EE|EE|
europe|lv_LV|LV|
europe|pl_PL|PL|
europe|cs_CZ|CZ|
europe|sk_SK|SK|
europe|hu_HU|HU|
europe|ro_RO|RO|
europe|hr_HR|HR|
europe|sl_SI|SI|
europe|is_IS|IS|
middle_east|tr_TR|TR|
middle_east|fr_DZ|TN|
middle_east|fr_DZ|FR|Marseille, Lyon, Paris
middle_east|arabic|AE|
middle_east|arabic|SA|
middle_east|arabic|BH|
middle_east|arabic|JO|
middle_east|arabic|EG|
africa|sw|BI|
africa|pt_PT|ST|
africa|yo_NG|GB|London, Manchester, Birmingham
africa|ig_NG|GB|London, Leeds, Cardiff
africa|ha_NG|DE|Hamburg, Berlin, Frankfurt
africa|tw_GH|NL|Amsterdam, Rotterdam, Den Haag
africa|tw_GH|GB|London, Leeds, Bristol
africa|en_KE|GB|London, Leicester, Edinburgh
africa|zu_ZA|GB|London, Exeter, Bristol
east_asia|mongolian|MN|
east_asia|ja_JP|DE|Düsseldorf, Hamburg, Berlin
east_asia|ja_JP|BR|São Paulo, Curitiba, Londrina
east_asia|chinese|IT|Prato, Milano, Roma
east_asia|chinese|FR|Paris, Lyon
east_asia|chinese|NL|Rotterdam, Amsterdam
east_asia|korean|DE|Frankfurt, Bochum, Berlin
east_asia|korean|GB|London, Manchester
east_asia|vi_VN|CZ|Praha, Cheb, Brno
east_asia|vi_VN|FR|Paris, Toulouse
east_asia|id_ID|NL|Den Haag, Amsterdam
south_asia|pakistani|PK|
south_asia|pakistani|GB|Bradford, Birmingham, Manchester
south_asia|en_IN|MU|
south_asia|en_IN|GB|Leicester, London, Birmingham
south_asia|en_IN|PT|Lisboa, Porto
south_asia|en_IN|DE|München, Frankfurt, Berlin
latin_america|pt_BR|BR|
latin_america|es_CO|CR|
latin_america|es_MX|DO|
latin_america|es_MX|GT|
latin_america|es_MX|SV|
latin_america|es_AR|ES|Madrid, Barcelona, Valencia
latin_america|es_CL|ES|Madrid, Sevilla, Bilbao
latin_america|es_CO|ES|Madrid, Alicante, Zaragoza
"""


def _table(text: str) -> list[list[str]]:
    return [line.split("|") for line in text.strip().splitlines()]


def _countries() -> dict[str, Country]:
    cities = {code: tuple(names.split(", ")) for code, names in _table(_CITIES)}
    return {
        code: Country(name, int(calling_code), tuple(phones.split()), bban, passport, cities[code])
        for code, name, calling_code, phones, bban, passport in _table(_COUNTRIES)
    }


COUNTRIES: dict[str, Country] = _countries()
"""By ISO 3166-1 alpha-2 code."""

CULTURES: dict[str, tuple[Culture, ...]] = {}
"""By region of appearance (the regions of ``portraits.REGIONS``)."""

for _region, _names, _code, _places in _table(_CULTURES):
    _culture = Culture(_region, _names, _code, tuple(_places.split(", ")) if _places else COUNTRIES[_code].cities)
    CULTURES[_region] = (*CULTURES.get(_region, ()), _culture)
