"""The page of a data set: complete, self-contained, escaped, the same bytes twice, and without an objection of axe."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from good_world import GoodWorld, picture

from data_pipelines.audit.survey import RETAIN, Sample, Survey, survey_world
from salmu_jax.report.charts import PANEL_WIDTH, distribution
from salmu_jax.report.data_page import data_page, write_data_page

HOSTILE = "Ana </title><script>document.title='owned'</script><img src=x onerror=alert(1)> {{ 7*7 }}"
MADE = {"directory": "worlds/good", "seed of the pictures": 3}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("look")
    survey = survey_world(GoodWorld(pairs=3).write(directory / "good"), seed=3)
    write_data_page(directory / "page.html", survey, made=MADE)
    return directory / "page.html"


def tags_of(text: str) -> Counter[str]:
    found: Counter[str] = Counter()

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found[tag] += 1
            assert not [key for key, _ in attrs if key.startswith("on") or key == "style"]
            for key, value in attrs:
                if key in ("src", "href"):
                    assert value.startswith(("data:", "#")), value

    Tags().feed(text)
    return found


def test_the_page_says_what_is_there(page):
    text = " ".join(re.sub(r"<[^>]+>", " ", page.read_text()).split())
    for expected in (
        "The data in good", "114 pairs", "2 tars of retain pairs", "3 classes for zero-shot classification, with 2 templates",
        "CLIP tokens of sensitive captions 108 captions, from ", "Pairs of an association",
        "People by country code", "blood type", "worlds/good",
    ):  # fmt: skip
        assert expected in text, expected
    tags = tags_of(page.read_text())
    assert tags["img"] == 42 + 24 + 27 + 6 + 4 + 6  # of the splits, the retain pairs, the zero-shot images
    assert tags["script"] == tags["style"] == 1


def test_the_same_survey_gives_the_same_bytes(page, tmp_path):
    survey = survey_world(page.parent / "good", seed=3)
    write_data_page(tmp_path / "again.html", survey, made=MADE)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_hostile_text_stays_text(tmp_path):
    survey = Survey(tmp_path)
    survey.pairs, survey.people, survey.associations = {"forget": Counter({HOSTILE: 2})}, {"forget": 1}, {"forget": 1}
    survey.countries[HOSTILE] = 1
    survey.samples = [Sample("forget", HOSTILE, HOSTILE, picture(1)), Sample(RETAIN, "", HOSTILE, picture(2))]
    text = data_page(survey, made={HOSTILE: HOSTILE})
    tags = tags_of(text)
    assert (tags["script"], tags["img"]) == (1, 2)
    assert "onerror=alert(1)&gt;" in text


def test_a_distribution_counts_every_value():
    chart = distribution({3: 2, 5: 1, 4: 7})
    assert (chart["least"], chart["median"], chart["most"], chart["count"]) == (3, 4, 5, 10)
    heights = [float(y) for y in re.findall(r"V([\d.]+)", chart["fill"])]
    assert min(heights) == 8  # the highest bar reaches the top
    assert all(0 <= x <= PANEL_WIDTH for x, _ in chart["ticks"])
    assert distribution({}) == {}
    wide = distribution({value: 1 for value in range(1000)})
    assert wide["count"] == 1000
    assert len(re.findall("V", wide["fill"])) <= 60
    assert distribution({1.5: 4})["median"] == 1.5


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390)])
def test_axe_objects_to_nothing(axe, page, scheme, width):
    assert axe(page, scheme, width) == []
