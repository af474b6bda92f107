"""What bounds the making of batches, by what was measured, and the advice that follows."""

import dataclasses
import time

import numpy as np
import pytest

from salmu_jax.runtime.feed import BatchCosts, DataFeed

# 1,000 pairs of 50 KiB, a core 500 of them a second; threads that had a CPU whenever they wanted one.
DECODING = BatchCosts(1_000, 1_000 * 51_200, 0.25, 0.2, 1.8, 1.8)


def with_costs(**changes):
    return dataclasses.replace(DECODING, **changes)


def test_costs_of_batches_add_up():
    costs = BatchCosts()
    costs.add(DECODING.to_array())
    costs.add(DECODING.to_array())
    assert costs == BatchCosts(*(2 * np.array(dataclasses.astuple(DECODING))).tolist())
    assert costs.pairs_per_cpu_second == pytest.approx(500)


def test_time_without_a_cpu_is_no_storage():
    """Where everything takes three times its CPU time, so does reading, and the storage is not to blame."""
    starved = with_costs(read_seconds=0.6, decode_seconds=5.4)
    assert starved.storage_share == 0
    assert with_costs(read_seconds=4.2).storage_share == pytest.approx(4 / 6)
    assert with_costs(read_seconds=12.6, decode_seconds=5.4).storage_share == pytest.approx(12 / 18)


def test_measuring_tells_waiting_from_working():
    costs = BatchCosts(pairs=1)
    with costs.reading():
        time.sleep(0.2)
    with costs.decoding():
        began = time.thread_time()
        while time.thread_time() - began < 0.02:
            pass
    assert costs.read_seconds >= 0.2 > 0.1 > costs.read_cpu_seconds
    assert costs.decode_cpu_seconds >= 0.02
    # Only one of the two clocks follows the network's time, so they may differ by parts in a thousand.
    assert costs.decode_seconds > 0.99 * costs.decode_cpu_seconds
    assert costs.storage_share > 0


@pytest.mark.parametrize(
    ("feed", "advice"),
    [
        # Half of the time is waited for 800 pairs/s, so the devices would take 1,600: work for four CPUs.
        (
            DataFeed(workers=2, cpus=8, costs=DECODING),
            "a CPU decodes 500 pairs/s and the devices would take 1,600, which is work for 4 CPUs; 2 workers decode and 8"
            " CPUs are here: data.workers=4 would help",
        ),
        (
            DataFeed(workers=0, cpus=8, costs=DECODING),
            "; this process alone decodes and 8 CPUs are here: data.workers=4",
        ),
        (DataFeed(workers=2, cpus=4, costs=DECODING), "data.workers=3 would help"),  # as many as there are
        (DataFeed(workers=6, cpus=8, costs=DECODING), "data.workers=7 would help"),  # four were too few, by experience
        (DataFeed(workers=2, cpus=2, costs=DECODING), "which is work for 4 CPUs; 2 are here: a host with more of them"),
        (DataFeed(workers=0, cpus=1, costs=DECODING), "which is work for 4 CPUs; 1 are here: a host with more of them"),
        (DataFeed(workers=2, cpus=8, hosts=4, costs=DECODING), "the devices would take 400, which is work for 1 CPUs"),
        (
            DataFeed(workers=3, cpus=4, costs=with_costs(read_seconds=7.4)),
            "of the time of making batches 78 % passes waiting for the storage, which gives 39 MiB/s where 78 would do:"
            " nearer or faster storage would help, or data.workers=8, which wait at the same time",
        ),
        (DataFeed(workers=2, cpus=8, cached=True, costs=DECODING), "in memory already"),
        (DataFeed(workers=2, cpus=8, costs=BatchCosts()), "2 workers decode and 8 CPUs are here; data.workers=7"),
    ],
)
def test_the_advice_follows_from_what_was_measured(feed, advice):
    assert advice in feed.cause_of_waiting(rate=800, share=0.5)
