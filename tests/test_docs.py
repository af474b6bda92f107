"""The pages for people: their links lead somewhere, their commands parse, and what they name exists."""

import re
import shlex
import tomllib

import documents
import pytest
import yaml

from salmu_jax import commands
from salmu_jax.config import load_config
from salmu_jax.evaluation import verdicts
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.plan import needs

ROOT = documents.ROOT
PAGES = {str(path.relative_to(ROOT)): path for path in documents.DOCUMENTS}
COMMANDS = sorted(
    {
        command
        for path in documents.DOCUMENTS
        for text in [path.read_text(encoding="utf-8")]
        for command in [*documents.commands(text), *documents.inline_commands(text)]
    }
)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page):
    text = PAGES[page].read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (PAGES[page].parent / name).resolve() if name else PAGES[page]
        assert file.is_file(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    """Those in backticks that begin with one of our directories; capitals stand for something else."""
    named = re.findall(
        r"`((?:salmu_jax|data_pipelines|configs|tests|tpu_scripts|benchmarks|docs)/[\w./-]*)`",
        PAGES[page].read_text(encoding="utf-8"),
    )
    assert [name for name in named if not re.search("[A-Z]{3}", name) and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/index.md"])
def test_the_index_leads_to_every_page(page):
    assert re.search(rf"\]\((\.\./)?{page.removeprefix('docs/')}\)", documents.read("docs/index.md"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses_and_its_fields_exist(command):
    options, overrides = commands.parse(shlex.split(command)[1:])
    config = getattr(options, "config", None)
    if config and (ROOT / config).is_file():
        load_config(ROOT / config, overrides)
    else:
        assert not overrides


def test_the_examples_of_methods_are_there():
    examples = re.findall(r"`(\w+\.py)`", documents.section("docs/methods.md", "## Examples to read"))
    assert len(examples) > 10
    assert [name for name in examples if not (ROOT / "salmu_jax" / "unlearning" / "methods" / name).is_file()] == []


def test_the_table_of_methods_is_that_of_the_registry():
    table = documents.section("docs/methods.md", "## The methods").partition("\n\n**")[0]
    expected = ["| name | title | steps | reads | presets |", "|---|---|---|---|---|"]
    for name, method in registry.METHODS.items():
        steps, presets = "yes" if method.takes_steps() else "", ", ".join(f"`{preset}`" for preset in method.presets)
        expected.append(f"| `{name}` | {method.title} | {steps} | {', '.join(needs(method()))} | {presets} |")
    assert [line for line in table.splitlines() if line.startswith("|")] == expected, "\n".join(expected)


def test_the_citation_names_this_version_and_licence():
    citation = yaml.safe_load(documents.read("CITATION.cff"))
    project = tomllib.loads(documents.read("pyproject.toml"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_the_glossary_explains_no_word_twice():
    words = [
        word
        for row in re.findall(r"^\| (\*\*.+?) \|", documents.read("docs/glossary.md"), re.MULTILINE)
        for word in re.findall(r"\*\*(.+?)\*\*", row)
    ]
    assert len(words) == len(set(words)) > 40


def test_the_readme_and_the_guide_show_the_same_method():
    (one,) = documents.blocks(documents.section("README.md", "### Your own method"), "python")
    (other,) = documents.blocks(documents.section("CONTRIBUTING.md", "## Write a method in ten minutes"), "python")
    assert one == other


@pytest.mark.parametrize("rule", verdicts.RULES, ids=lambda rule: f"{rule.name}-{rule.statistic}")
def test_the_page_of_metrics_states_every_rule(rule):
    text = documents.section("docs/metrics.md", "## Verdicts")
    (stated,) = re.findall(rf"^(?:\| )?\*\*{rule.name}\*\*(?: \||[^\n]*label).*\n?(?!\|).*", text, re.MULTILINE)
    assert rule.line() in stated
