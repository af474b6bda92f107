"""The progress line, with a clock and a stream of the test's own."""

import io

import pytest

from salmu_jax.runtime.feed import BatchCosts, DataFeed
from salmu_jax.runtime.progress import Progress, _rate, duration


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress_on(stream, total=100, first=0, **options):
    clock = Clock()
    return Progress("pretrain clean", total, first, stream=stream, clock=clock, **options), clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (-3, "0:00"), (9.4, "0:09"), (59.6, "1:00"), (75.2, "1:15"), (3599.6, "1:00:00"), (3725, "1:02:05")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
    assert duration(360_000) == "100:00:00"


def test_a_plain_line_says_step_metrics_rate_waiting_and_time_left():
    stream = io.StringIO()
    progress, clock = progress_on(stream, total=1_000)
    clock.now += 20
    progress.waited(3)
    progress.waited(2)
    progress.update(100, 16_000, {"loss": 1.23456, "scale": 14.2857})
    assert stream.getvalue() == (
        "pretrain clean: step 100/1,000  loss 1.235  scale 14.29  800 pairs/s  data wait 25 %  3:00 left\n"
    )


def test_plain_lines_come_at_most_so_often_but_the_last_one_always_does():
    stream, asked = io.StringIO(), []
    progress, clock = progress_on(stream, total=10, plain_every=15.0, unit="pictures")

    def metrics():
        asked.append(clock.now)
        return {}

    for step in range(1, 11):
        clock.now += 4
        progress.update(step, 8, metrics)
    lines = stream.getvalue().splitlines()
    assert [line.split()[3] for line in lines] == ["4/10", "8/10", "10/10"]
    assert asked == [1_016.0, 1_032.0, 1_040.0]  # metrics cost a wait for the device, so they are asked for when due
    assert lines[-1] == "pretrain clean: step 10/10  2 pictures/s  data wait 0 %  0:40 in all"


def test_rates_and_time_left_of_a_resumed_run_are_of_this_process():
    stream = io.StringIO()
    progress, clock = progress_on(stream, total=1_000, first=900)
    clock.now += 30
    progress.update(950, 300, {})
    assert stream.getvalue() == "pretrain clean: step 950/1,000  10 pairs/s  data wait 0 %  0:30 left\n"


def test_a_terminal_line_is_rewritten_and_ends_with_the_run():
    stream = Terminal()
    progress, clock = progress_on(stream, total=3)
    for step in range(1, 4):
        clock.now += 0.4 if step == 1 else 0.6
        progress.update(step, 1, {"loss": 1.0})
    written = stream.getvalue()
    assert [part.split()[3] for part in written.split("\r\x1b[K")[1:]] == ["2/3", "3/3"]
    assert written.count("\n") == 1
    assert written.endswith("in all\n")


def test_no_time_at_all_is_no_division_by_zero():
    stream = io.StringIO()
    progress, _ = progress_on(stream, total=1)
    progress.update(1, 1, {})
    assert "step 1/1" in stream.getvalue()


def test_only_the_first_process_speaks(monkeypatch):
    monkeypatch.setattr("salmu_jax.runtime.distributed.is_main", lambda: False)
    stream = io.StringIO()
    progress, clock = progress_on(stream, total=1)
    clock.now += 100
    progress.update(1, 1, {})
    assert stream.getvalue() == ""


def test_model_flops_utilisation_is_shown_when_the_peak_is_known():
    stream = io.StringIO()
    progress, clock = progress_on(stream, flops_per_item=100e9, peak_flops=1e15)
    clock.now += 20
    progress.update(50, 80_000, {})
    assert "4,000 pairs/s  MFU 40.0 %  data wait" in stream.getvalue()
    stream = io.StringIO()
    progress, clock = progress_on(stream, flops_per_item=100e9)
    clock.now += 20
    progress.update(50, 80_000, {})
    assert "MFU" not in stream.getvalue()


def test_rates_and_time_left_are_without_the_first_call_which_compiles():
    stream = io.StringIO()
    progress, clock = progress_on(stream, total=100)
    for step, seconds in ((10, 600), (20, 20), (30, 20)):
        clock.now += seconds
        progress.update(step, 100, {})
    assert "step 30/100  5 pairs/s  data wait 0 %  2:20 left" in stream.getvalue().splitlines()[-1]


def waiting(feed, wait, calls=60):
    """What is printed when each call of 20 s waits ``wait`` seconds for its data."""
    stream = io.StringIO()
    progress, clock = progress_on(stream, total=1_000, feed=feed)
    for step in range(1, calls + 1):
        clock.now += 20
        progress.waited(wait)
        progress.update(step, 8, {})
    return [line for line in stream.getvalue().splitlines() if "warning" in line]


def test_a_long_wait_for_data_is_explained_every_ten_minutes():
    lines = waiting(DataFeed(workers=0, cpus=8), wait=10)
    assert lines == 2 * [
        "pretrain clean: warning: 50 % of the time is spent waiting for data: images are decoded in the training process"
        " itself; data.workers=7 would decode beside it"
    ]
    assert waiting(DataFeed(workers=0, cpus=8), wait=3) == []
    assert waiting(None, wait=10) == []


def test_the_explanation_has_the_speed_that_the_devices_would_take():
    """Calls of 20 s over 8 pairs, of which 10 s are waited: 0.8 pairs/s without waiting."""
    feed = DataFeed(workers=1, cpus=8, costs=BatchCosts(pairs=100, decode_seconds=500, decode_cpu_seconds=500))
    assert "a CPU decodes 0.2 pairs/s and the devices would take 0.8, which is work for 4 CPUs" in waiting(feed, 10)[0]


@pytest.mark.parametrize(
    ("feed", "cause"),
    [
        (DataFeed(workers=2, cpus=8), "2 workers decode and 8 CPUs are here; data.workers=7 would use them"),
        (DataFeed(workers=7, cpus=8), "7 workers keep all 8 CPUs busy, or wait for the storage"),
        (DataFeed(workers=0, cpus=1), "decoded in the training process itself; it has one CPU"),
        (DataFeed(workers=0, cached=True), "in memory already"),
    ],
)
def test_the_cause_of_a_wait_follows_from_how_batches_are_made(feed, cause):
    assert cause in feed.cause_of_waiting()


def test_a_slow_run_is_no_standing_one():
    rates = {12_345.6: "12,346", 99.7: "100", 4.87: "4.9", 0.4178: "0.42", 0.0042: "0.0042", 0: "0"}
    assert {rate: _rate(rate) for rate in rates} == rates
