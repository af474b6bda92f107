"""The progress line, with a clock and a stream of the test's own."""

import io

import pytest

from salmu_jax.training.progress import Progress, duration


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
    monkeypatch.setattr("salmu_jax.training.progress.jax.process_index", lambda: 1)
    stream = io.StringIO()
    progress, clock = progress_on(stream, total=1)
    clock.now += 100
    progress.update(1, 1, {})
    assert stream.getvalue() == ""
