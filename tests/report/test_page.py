"""The pages: complete, self-contained, escaped, the same bytes twice, and shown by a browser without a complaint."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from salmu_jax.report.gather import gather_files
from salmu_jax.report.index_view import off_target
from salmu_jax.report.page import build_board, render_pages, write_report
from salmu_jax.report.pictures import thumbnail
from salmu_jax.report.render import decimal, percent, signed
from salmu_jax.report.site import make_site, page_names
from salmu_jax.runtime.contents import write_contents
from salmu_jax.runtime.errors import InputError

HOSTILE = "</title></style></svg><script>document.title='owned'</script><img src=x onerror=alert(1)>'\"&$title{{ 7*7 }}"
SVG = "{http://www.w3.org/2000/svg}"
DRAWN = ("svg", "style", "rect", "line", "text", "circle", "a", "title", "path")
VIEWS = [("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390)]


class _Page(HTMLParser):
    """Collects the tags with their attributes, and the text outside of script and style."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self._silent = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent -= tag in ("script", "style")
        self.text += " " if tag == "dt" else ""

    def handle_data(self, data):
        if not self._silent:
            self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def _files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_two_writes_give_the_same_bytes_and_replace_the_older_report(
    report_page, results, build_entries, samples, run, tmp_path
):
    out = tmp_path / "report"
    (out / "figures").mkdir(parents=True)
    (out / "stale.txt").write_text("from an older run")
    write_contents(out, "report")
    entries = build_entries(results[::-1])
    page, board = write_report(out, entries, samples, title="SALMUBench, mini", run=run)
    assert page == out / "index.html"
    files = _files(out)
    assert files == _files(report_page.parent)
    names = [
        *(f"figures/{panel}_kept.svg" for panel in ("genknow", "holdouts")),
        "contents.json",
        "index.html",
        "leaderboard.json",
        *(f"models/{row['model']}.html" for row in board["rows"]),
    ]
    assert sorted(files) == sorted(names)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert json.loads(files["leaderboard.json"]) == board


def test_a_report_that_cannot_be_made_leaves_the_older_one(results, build_entries, samples, run, tmp_path):
    out = tmp_path / "report"
    out.mkdir()
    (out / "index.html").write_text("older")
    entries = build_entries([result for result in results if result["model"] in ("clean", "compromised")])
    broken = [*samples, {"subset": "retain", "caption": "no picture", "image": b"not a picture"}]
    with pytest.raises(InputError, match="cannot be decoded"):
        write_report(out, entries, broken, title="t", run=run)
    assert (out / "index.html").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_pages_ask_nothing_of_the_network_and_run_only_their_own(report_page):
    root = report_page.parent
    for path in root.rglob("*.html"):
        text = path.read_text()
        page = _Page(text)
        assert len(page.all("img")) == (12 if path == report_page else 0)
        for tag, attributes in page.tags:
            for key in ("src", "href", "srcset", "data", "action", "poster"):
                value = attributes.get(key)
                if value is not None and not value.startswith(("data:", "#")):
                    assert tag == "a", f"{tag} {key}={value[:60]}"
                    assert (path.parent / value).resolve().is_file(), value
            assert not [key for key in attributes if key.startswith("on") or key == "style"]
        assert not page.all("iframe")
        assert not re.search(r"url\(|@import", text)
        # The script and the style that the policy allows are those that are there.
        policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
        for tag in ("script", "style"):
            (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_page_says_what_it_should(report_page):
    page = _Page(report_page.read_text())
    text = " ".join(page.text.split())
    for expected in (
        "What was found", "52 times Clean's 0.0070",  # findings
        "Forgetting efficacy → Clean", "Utility → Compromised", "0.3630",  # the table
        "CLIPErase", "GenKnow fell by 52.6 points",  # verdicts with their reasons
        "not on the released data",  # the notice and the caveat
        "Ana Souza's blood type is A+", "To be forgotten in part", "a red circle on a blue ground",  # samples
        "salmu bench --config configs/mini.py", "141.0 s", "jax 0.10.2", "d" * 64,  # how it was measured
    ):  # fmt: skip
        assert expected in text, expected
    assert "$" not in text
    assert "{{" not in text
    assert all(image["alt"].strip() for image in page.all("img"))
    assert all(image["width"] and image["height"] for image in page.all("img"))
    assert page.all("html") == [{"lang": "en"}]
    rows = [attributes.get("class") for attributes in page.all("tr")]
    assert rows[2:5] == ["clean", "compromised", "method"]
    assert len(page.all("svg")) > 30


def test_every_figure_has_its_target_and_signed_distance(report_page):
    text = report_page.read_text()
    row = next(
        part
        for part in re.findall(r"<tr class=\"method\".*?</tr>", text, re.DOTALL)
        if "models/finetuning.html" in part
    )
    shown = [
        re.sub(r"<[^>]+>", " ", cell).split() for cell in re.findall(r"<td[^>]*data-value.*?</td>", row, re.DOTALL)
    ]
    assert shown[1][:2] == ["0.2100", "+0.2030"]  # after the rank: RetFail MRR, and its distance from Clean's
    assert shown[7][:2] == ["0.605", "−0.019"]  # GenKnow, from Compromised's
    assert len(shown) == 12
    heads = re.sub(r"<[^>]+>", " ", text[text.index("<thead>") : text.index("</thead>")]).split()
    assert heads.count("→") == 2 + 11
    assert "0.0070" in heads
    assert "0.624" in heads


def test_a_models_page_says_how_it_was_made_and_measured(report_page, results, build_entries, samples, run, tmp_path):
    text = " ".join(_Page((report_page.parent / "models" / "precise.html").read_text()).text.split())
    for expected in (
        "0.0040",
        "0.0036 to 0.0044",
        "−0.3590",
        "RetFail MRR",
        "By attribute",
        "blood type",
        "Provenance",
    ):
        assert expected in text, expected
    result = next(result for result in results if result["model"] == "delete")
    result["provenance"]["checkpoint"]["run"] = {
        "name": "delete", "method": "delete", "title": "DELETE", "reference": "Zhou et al., CVPR 2025",
        "options": {"forgetting_weight": 1.5}, "hyper": {"learning_rate": 1e-5}, "seed": 7,
        "parent": {"name": "compromised", "digest": "1" * 64}, "forget": {"share": 0.1, "by": "rows", "seed": 3},
        "forget_rows": 40, "retain": ["salmu/retain_synth"],
    }  # fmt: skip
    next(r for r in results if r["model"] == "compromised")["provenance"]["checkpoint"]["digest"] = "1" * 64
    out = tmp_path / "report"
    write_report(out, build_entries(results), samples, title="t", run=run)
    raw = (out / "models" / "delete.html").read_text()
    text = " ".join(_Page(raw).text.split())
    for expected in (
        "Zhou et al., CVPR 2025", "forgetting weight 1.5", "learning rate 1e-05", "0.1 of the rows, seed 3", "seed 7",
        "Rows to forget 40", "salmu/retain_synth",
    ):  # fmt: skip
        assert expected in text, expected
    assert 'href="compromised.html"' in raw
    result["provenance"]["checkpoint"]["run"].update(retain=[], trains_without_retain=True)
    write_report(out, build_entries(results), samples, title="t", run=run)
    raw = (out / "models" / "delete.html").read_text()
    assert "nothing: the method trains on no retain pairs" in " ".join(_Page(raw).text.split())


def test_bars_are_distances_from_the_target():
    reference = {
        "clean": {"metrics": {"RetFail_MRR": 0.01, "GenKnow": 0.7}},
        "compromised": {"metrics": {"RetFail_MRR": 0.41, "GenKnow": 0.6}},
    }
    assert off_target(0.01, "RetFail_MRR", "clean", reference) == 0
    assert off_target(0.11, "RetFail_MRR", "clean", reference) == pytest.approx(0.25)
    assert off_target(0.9, "RetFail_MRR", "clean", reference) == 1
    assert off_target(0.3, "GenKnow", "compromised", reference) == pytest.approx(0.5)
    assert off_target(None, "GenKnow", "compromised", reference) is None


def test_numbers_are_written_with_real_signs():
    assert [decimal(value, 3) for value in (None, 0.12345, -0.5, -0.0001)] == ["–", "0.123", "−0.500", "0.000"]
    assert [signed(value, 2) for value in (None, 0.5, -0.5, 0.001, -0.001)] == ["–", "+0.50", "−0.50", "±0.00", "±0.00"]
    assert [percent(value) for value in (None, 0.5, -0.02)] == ["–", "50%", "−2%"]


def test_file_names_are_harmless_and_told_apart():
    names = page_names(["a", "A", "ada/a", "ada-a", "../../etc", "", HOSTILE, "ö" * 200])
    assert len({name.lower() for name in names.values()}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.html", name) for name in names.values())


def test_captions_of_both_fates_are_told_apart(report_page):
    text = report_page.read_text()
    jun = text[text.index("Jun Mori") : text.index("Lena Vogt")]
    assert re.findall(r"<figure class=\"(\w+)\">", jun) == ["forget", "forget", "keep"]
    assert jun.count("Some facts about this person") == 1


@pytest.fixture
def hostile_pages(results, build_entries, samples, run):
    """The pages of results in which every text that others choose is hostile."""
    results = copy.deepcopy(results)
    for result in results:
        result["caveats"] = [HOSTILE + " not the paper's figures"]
        result["protocol"]["idzsc_prompt"] = HOSTILE
        result["provenance"] |= {"device": HOSTILE, "command": HOSTILE, HOSTILE: HOSTILE, "config": {HOSTILE: HOSTILE}}
        result["provenance"]["checkpoint"] |= {"digest": HOSTILE, "name": HOSTILE, "splits_read": [HOSTILE]}
        result["extra"]["by_field"] = {HOSTILE: dict(result["extra"]["by_field"]["city"])}
    odd = next(result for result in results if result["model"] == "delete")
    odd["model"] = HOSTILE
    odd["provenance"]["checkpoint"]["run"] = {
        "name": HOSTILE, "title": HOSTILE, "method": HOSTILE, "reference": HOSTILE, "options": {HOSTILE: HOSTILE},
        "hyper": {HOSTILE: [HOSTILE]}, "seed": HOSTILE, "parent": {"name": HOSTILE, "digest": HOSTILE},
        "forget": {HOSTILE: HOSTILE, "identities": [HOSTILE]}, "forget_rows": HOSTILE, "retain": HOSTILE, "code": HOSTILE,
    }  # fmt: skip
    for sample in samples:
        sample["subset"] = sample["subset"] if "images" in sample else HOSTILE
        if "images" in sample:
            sample |= {"name": HOSTILE, "identity_id": HOSTILE, "captions": [HOSTILE] * len(sample["captions"])}
        else:
            sample["caption"] = HOSTILE
    run = run | {"command": HOSTILE, "config": {HOSTILE: HOSTILE}, "stages": {HOSTILE: 1.0}, HOSTILE: HOSTILE}
    entries = [entry._replace(submitter=HOSTILE, confirmed_by=(HOSTILE,)) for entry in build_entries(results)]
    board = build_board(entries)
    board["rows"][-1] |= {"reasons": [HOSTILE, HOSTILE], "verdicts": [HOSTILE, "catastrophic"]}
    board["groups"][-1]["verdicts"] = [{"verdict": HOSTILE, "seeds": 1}]
    return render_pages(make_site(board, entries), samples, title=HOSTILE, run=run)


def test_hostile_text_stays_text(hostile_pages, samples):
    for name, text in hostile_pages.items():
        if name.endswith(".svg"):
            assert {element.tag for element in ElementTree.fromstring(text).iter()} <= {SVG + tag for tag in DRAWN}
            continue
        page = _Page(text)
        assert len(page.all("script")) == 1, name
        assert len(page.all("style")) == 1, name
        assert not [attributes for _, attributes in page.tags if any(key.startswith("on") for key in attributes)]
        assert all(
            re.fullmatch(r"(\.\./|models/|figures/)?[\w.-]+\.(html|json|svg)|#\w+", a["href"]) for a in page.all("a")
        )
        assert HOSTILE in page.text
    page = _Page(hostile_pages["index.html"])
    assert len(page.all("img")) == sum(len(sample.get("images", [1])) for sample in samples)
    assert HOSTILE in [image["alt"].removeprefix("Picture of ") for image in page.all("img")]


def test_hostile_text_does_nothing_in_a_browser(browser, hostile_pages, tmp_path):
    for name, text in hostile_pages.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for name in [name for name in hostile_pages if name.endswith(".html")][:3]:
        browser.get((tmp_path / name).as_uri())
        assert "owned" not in (browser.title.replace(HOSTILE, ""))
        assert browser.execute_script("return document.querySelectorAll('script').length") == 1
        assert browser.get_log("browser") == []


def test_thumbnails(build_portrait):
    small = build_portrait(1)
    assert thumbnail(small) == ("image/jpeg", small, (96, 96))  # as it is
    cmyk = io.BytesIO()
    Image.open(io.BytesIO(build_portrait(2, size=600))).convert("CMYK").save(cmyk, "JPEG")
    mime, data, size = thumbnail(cmyk.getvalue())
    assert (mime, size) == ("image/jpeg", (256, 256))
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    with pytest.raises(InputError, match="cannot be decoded"):
        thumbnail(small[: len(small) // 3])


# In a browser ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def peoples_page(people, tmp_path_factory):
    """The page of three people's results."""
    entries = gather_files(sorted(people.glob("*/results")), print)
    page, _ = write_report(
        tmp_path_factory.mktemp("board") / "board", entries, title="Three people", run={"results": 23}
    )
    return page


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_browser_shows_every_picture_without_a_complaint(check_page, report_page, peoples_page, scheme, width):
    assert check_page(report_page, scheme, width) == 12
    assert check_page(report_page.parent / "models" / "precise.html", scheme, width) == 0
    assert check_page(peoples_page.parent / "models" / "ada-delete_0_seed1.html", scheme, width) == 0


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
def test_axe_objects_to_nothing(axe, report_page, peoples_page, scheme, width):
    pages = [report_page, report_page.parent / "models" / "negative_gradient.html"]
    pages += [peoples_page, peoples_page.parent / "models" / "ada-delete_0_seed1.html"]
    assert {page.name: found for page in pages if (found := axe(page, scheme, width))} == {}


def _models(browser):
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('.leaderboard tbody tr:not([hidden]) th a'), (link) => link.textContent)"
    )


def _open(browser, page, width=1440):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.get(page.as_uri())


def test_browser_sorts_methods_and_keeps_the_references_on_top(browser, report_page):
    _open(browser, report_page)
    before = _models(browser)
    button = browser.find_elements("css selector", ".leaderboard thead button")[2]
    assert button.text.replace("\n", "") == "RetFail MRR"
    button.click()
    assert _models(browser)[:2] == ["Clean", "Compromised"]
    assert _models(browser)[-1] == "Finetuning"  # the largest RetFail MRR
    button.click()
    assert _models(browser)[2] == "Finetuning"
    button.click()
    assert _models(browser) == before
    assert browser.get_log("browser") == []


def test_everything_can_be_reached_and_used_by_keyboard(browser, peoples_page):
    from selenium.webdriver import ActionChains, Keys

    _open(browser, peoples_page)

    def press(*keys):
        ActionChains(browser).send_keys(*keys).perform()

    def focused(field):
        return browser.execute_script(f"return document.activeElement.{field}")

    press(Keys.TAB)
    assert focused("textContent") == "Skip to the content"
    seen = []
    for _ in range(200):
        press(Keys.TAB)
        seen.append(
            (focused("tagName"), focused("id"), focused("className.baseVal || document.activeElement.className"))
        )
        if focused("tagName") == "BODY":
            break
        if focused("id") == "filter":
            press("delete ada")
            assert _models(browser) == ["Clean", "Compromised", "DELETE (SALMU)"]
            assert browser.find_element("css selector", "output").text == "1 of 9"
            press(Keys.BACKSPACE * 10)
            assert len(_models(browser)) == 11
    tags = [tag for tag, _, _ in seen]
    assert ("INPUT", "filter") in [one[:2] for one in seen]
    assert tags.count("BUTTON") == 2 + 11  # rank, name and every metric
    assert tags.count("SUMMARY") >= 2
    assert any(kind.startswith("mark") for _, _, kind in seen)  # the scatter's links
    # Enter follows a link to a model, and from there back.
    link = browser.find_element("css selector", ".leaderboard tbody:not(.pinned) th a")
    browser.execute_script("arguments[0].focus()", link)
    press(Keys.ENTER)
    assert "/models/" in browser.current_url
    browser.find_element("css selector", "nav a").send_keys(Keys.ENTER)
    assert browser.current_url == peoples_page.as_uri()
    assert browser.get_log("browser") == []
