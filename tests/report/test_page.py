"""The page: complete, self-contained, escaped, the same bytes twice, and every picture shown by a browser."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from salmu_jax.report.leaderboard import build_leaderboard
from salmu_jax.report.page import _off_target, render_page, write_report
from salmu_jax.report.pictures import thumbnail
from salmu_jax.runtime.contents import write_contents
from salmu_jax.runtime.errors import InputError

HOSTILE = "</title></style><script>document.title='owned'</script><img src=x onerror=alert(1)>'\"&$title${run}"
_FIGURES = ("forgetting_utility", "similarity", "attributes")


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

    def handle_data(self, data):
        if not self._silent:
            self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_two_writes_give_the_same_bytes_and_replace_the_older_report(
    report_page, results, similarity, samples, run, tmp_path
):
    out = tmp_path / "report"
    (out / "figures").mkdir(parents=True)
    (out / "stale.txt").write_text("from an older run")
    write_contents(out, "report")
    page = write_report(out, results[::-1], similarity, samples, title="SALMUBench, mini", run=run)
    assert page == out / "index.html"
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    first = report_page.parent
    assert files == {p.relative_to(first).as_posix(): p.read_bytes() for p in first.rglob("*") if p.is_file()}
    names = [f"figures/{name}{theme}.png" for name in _FIGURES for theme in ("", "-dark")]
    assert sorted(files) == sorted([*names, "contents.json", "index.html", "leaderboard.json"])
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert json.loads(files["leaderboard.json"])["schema"] == "salmu_jax.leaderboard/2"


def test_a_report_that_cannot_be_made_leaves_the_older_one(results, similarity, samples, run, tmp_path):
    out = tmp_path / "report"
    out.mkdir()
    (out / "index.html").write_text("older")
    results = [result for result in results if result["model"] in ("clean", "compromised")]
    broken = [*samples, {"subset": "retain", "caption": "no picture", "image": b"not a picture"}]
    with pytest.raises(InputError, match="cannot be decoded"):
        write_report(out, results, similarity, broken, title="t", run=run)
    assert (out / "index.html").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_page_asks_nothing_of_the_network(report_page):
    text = report_page.read_text()
    page = _Page(text)
    assert len(page.all("img")) == 3 + 8 + 4
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), f"{tag} {key}={value[:60]}"
        assert not [key for key in attributes if key.startswith("on")]
    assert not page.all("iframe")
    assert not re.search(r"url\(|@import", text)
    # The script that the policy allows is the script that is there.
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


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
    assert all(image["alt"].strip() for image in page.all("img"))
    assert all(image["width"] and image["height"] for image in page.all("img"))
    assert page.all("html") == [{"lang": "en"}]
    rows = [attributes.get("class") for attributes in page.all("tr")]
    assert rows[2:5] == ["clean", "compromised", "method"]


def test_bars_are_distances_from_the_target():
    reference = {
        "clean": {"RetFail_MRR": 0.01, "GenKnow": 0.7},
        "compromised": {"RetFail_MRR": 0.41, "GenKnow": 0.6},
    }
    assert _off_target(0.01, "RetFail_MRR", "clean", reference) == 0
    assert _off_target(0.11, "RetFail_MRR", "clean", reference) == pytest.approx(0.25)
    assert _off_target(0.9, "RetFail_MRR", "clean", reference) == 1
    assert _off_target(0.3, "GenKnow", "compromised", reference) == pytest.approx(0.5)
    assert _off_target(None, "GenKnow", "compromised", reference) is None


def test_captions_of_both_fates_are_told_apart(report_page):
    text = report_page.read_text()
    jun = text[text.index("Jun Mori") : text.index("Lena Vogt")]
    assert re.findall(r"<figure class='(\w+)'>", jun) == ["forget", "forget", "keep"]
    assert jun.count("Some facts about this person") == 1


def test_hostile_text_stays_text(results, samples, run):
    results = copy.deepcopy(results)
    for result in results:
        result["caveats"] = [HOSTILE + " not the paper's figures"]
        result["protocol"]["idzsc_prompt"] = HOSTILE
        result["provenance"]["device"] = HOSTILE
        result["provenance"]["checkpoint"]["digest"] = HOSTILE
    next(result for result in results if result["model"] == "delete")["model"] = HOSTILE
    for sample in samples:
        sample["subset"] = sample["subset"] if "images" in sample else HOSTILE
        if "images" in sample:
            sample |= {"name": HOSTILE, "identity_id": HOSTILE, "captions": [HOSTILE] * len(sample["captions"])}
        else:
            sample["caption"] = HOSTILE
    run = run | {"command": HOSTILE, "config": {HOSTILE: HOSTILE}, "stages": {HOSTILE: 1.0}, HOSTILE: HOSTILE}
    board = build_leaderboard(results)
    board["rows"][-1] |= {"reasons": [HOSTILE, HOSTILE], "verdicts": [HOSTILE, "catastrophic"]}
    text = render_page(board, {}, samples, title=HOSTILE, run=run)
    page = _Page(text)
    assert len(page.all("script")) == 1
    assert len(page.all("img")) == sum(len(sample.get("images", [1])) for sample in samples)
    assert not [attributes for _, attributes in page.tags if any(key.startswith("on") for key in attributes)]
    assert HOSTILE in page.text
    assert HOSTILE in [image["alt"].removeprefix("Picture of ") for image in page.all("img")]


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


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_browser_shows_every_picture_without_a_complaint(check_page, report_page, scheme, width):
    assert check_page(report_page, scheme, width) == 15


def test_browser_sorts_methods_and_keeps_the_references_on_top(browser, report_page):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1280, 900)
    browser.get(report_page.as_uri())

    def models():
        return browser.execute_script(
            "return Array.from(document.querySelectorAll('.leaderboard tbody th'), (cell) => cell.textContent)"
        )

    before = models()
    button = browser.find_elements("css selector", ".leaderboard thead button")[1]
    button.click()
    assert models()[:2] == ["Clean", "Compromised"]
    assert models()[-1] == "Finetuning"  # the largest RetFail MRR
    button.click()
    assert models()[2] == "Finetuning"
    button.click()
    assert models() == before
    assert browser.get_log("browser") == []
