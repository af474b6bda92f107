"""The page about 400 million pairs shows what its script prints, and the simulation agrees with expectation."""

from __future__ import annotations

import math

import documents
import pytest

from benchmarks import scale


@pytest.fixture(scope="module")
def printed():
    return list(scale.tables())


def rows(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_page_has_every_table_as_it_is_printed(printed, capsys):
    page = documents.read("docs/scale.md")
    assert [table for table in printed if table not in page] == []
    assert page.count("\n|---") == len(printed)


def test_the_shards_that_a_step_reads_are_as_many_as_random_pairs_would_have(printed):
    for pairs, shards, hosts, read, *_ in rows(printed[3]):
        count, draws = int(shards.replace(",", "")), scale.BATCH // int(hosts)
        expected = count * -math.expm1(draws * math.log1p(-1 / count))
        assert int(read.replace(",", "")) == pytest.approx(expected, rel=0.02), (pairs, hosts)


def test_what_was_measured_is_stated_on_the_page():
    page, measured = documents.read("docs/scale.md"), scale.MEASURED
    first, second = measured.shuffle_per_4096
    for words in (
        f"{1000 * measured.build_cpu_per_pair:.2f} ms of a vCPU",
        f"{1000 * first:.2f} and {1000 * second:.2f} ms to shuffle 4,096",
        f"{1000 * measured.open_shard:.2f} ms to open a shard",
        f"{measured.index_per_record:.1f} bytes of index a record",
        f"pairs x {1000 * measured.build_cpu_per_pair:.2f} ms / 3,600 s",
    ):
        assert words in page


def test_hours_are_pairs_times_seconds(printed):
    (first, *_) = rows(printed[4])
    assert float(first[1]) == round(400e6 * scale.MEASURED.build_cpu_per_pair / 3600)
