"""Names in Latin letters, against published spellings."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.people.countries import REGIONS, homes
from data_pipelines.people.names import LISTS, draw_name
from data_pipelines.people.romanised import romanised

SOURCES = sorted({source for region in REGIONS for home in homes(region) for source in home.names})


@pytest.mark.parametrize(
    ("name", "language", "expected"),
    [
        ("Юлия Щербакова", "ru", "Yuliya Shcherbakova"),
        ("Елена Фадеева", "ru", "Yelena Fadeyeva"),
        ("Игорь Подъячев", "ru", "Igor Podyachev"),
        ("Савельев", "ru", "Savelyev"),
        ("Мамин-Сибиряк", "ru", "Mamin-Sibiryak"),
        # from the resolution of the Cabinet of Ministers of Ukraine, no. 55 of 2010
        ("Згорани", "uk", "Zghorany"),
        ("Юрій Єнакієв", "uk", "Yurii Yenakiiev"),
        ("Їжакевич", "uk", "Yizhakevych"),
        ("Мар'яна Короп'є", "uk", "Mariana Koropie"),
        ("Щербухи Гоща", "uk", "Shcherbukhy Hoshcha"),
        # ELOT 743
        ("Ευαγγελία Παπαδοπούλου", "el", "Evangelia Papadopoulou"),
        ("Αθανάσιος Μπουζούκης", "el", "Athanasios Bouzoukis"),
        ("Ευτυχία", "el", "Eftychia"),
        ("Μάιος", "el", "Maios"),
    ],
)
def test_published_spellings(name, language, expected):
    assert romanised(name, language) == expected


def test_an_unknown_language_is_refused():
    with pytest.raises(KeyError):
        romanised("Ida", "sv")


@pytest.mark.parametrize("source", SOURCES)
def test_names_are_in_latin_letters_and_depend_on_the_generator_alone(source):
    for gender in ("female", "male"):
        names = [draw_name(np.random.default_rng([4, index]), source, gender) for index in range(60)]
        assert len(set(names)) > 45
        for given, surname in names:
            for part in (given, surname):
                assert all(
                    character in " -'." or ord(character) < 0x250 or 0x1E00 <= ord(character) < 0x1F00
                    for character in part
                )
                assert part[0].isalpha() or part[0] == "'"
        assert draw_name(np.random.default_rng([4, 7]), source, gender) == names[7]


@pytest.mark.parametrize("source", sorted(set(SOURCES) & set(LISTS)))
def test_our_lists_agree_with_the_gender(source):
    women, men, surnames = LISTS[source]
    for index in range(30):
        given, surname = draw_name(np.random.default_rng(index), source, "female")
        assert given in women
        assert surname in surnames or (source == "bulgarian" and surname[:-1] in surnames)
        assert draw_name(np.random.default_rng(index), source, "male")[0] in men


def test_slavic_surnames_have_the_gender_of_their_bearers():
    for source in ("bulgarian", "ru_RU", "cs_CZ"):
        women = [draw_name(np.random.default_rng(index), source, "female")[1] for index in range(40)]
        men = [draw_name(np.random.default_rng(index), source, "male")[1] for index in range(40)]
        assert sum(name.endswith(("a", "á")) for name in women) >= 36, source
        assert sum(name.endswith(("a", "á")) for name in men) <= 8, source
