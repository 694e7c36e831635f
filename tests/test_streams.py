"""Batches that go through a network in parts."""

import threading

import numpy as np
import pytest

from xmr.engine.runtime.streams import MOST_STREAMS, SMALLEST_PART, Streams, n_streams, parts_of


@pytest.mark.parametrize("n_items", [0, 1, 3, 7, 8, 9, 31, 32, 33, 255])
@pytest.mark.parametrize("streams", [1, 2, 5, 8])
def test_parts_are_the_whole_batch_in_order(n_items, streams):
    parts = parts_of(n_items, streams)
    assert [place for part in parts for place in range(n_items)[part]] == list(range(n_items))
    assert len({part.stop - part.start for part in parts} - {0}) <= 2


def test_no_part_is_smaller_than_is_worth_a_run():
    assert all(part.stop - part.start >= SMALLEST_PART for n in range(4, 200) for part in parts_of(n, 8))


def test_one_stream_never_cuts_a_batch():
    assert parts_of(500, 1) == [slice(0, 500)]


def test_streams_are_as_many_as_threads_up_to_a_limit():
    assert [n_streams(threads) for threads in (1, 2, 64)] == [1, 2, MOST_STREAMS]


def test_outputs_of_the_parts_come_back_as_those_of_one_batch():
    batch = np.arange(66).reshape(33, 2)
    doubled, summed = Streams(lambda part: [part * 2, part.sum(axis=1)], 2).run(batch)
    np.testing.assert_array_equal(doubled, batch * 2)
    np.testing.assert_array_equal(summed, batch.sum(axis=1))


def test_parts_are_in_the_network_at_the_same_time():
    together = threading.Barrier(2, timeout=60)  # breaks, and fails the run, where one part waits for another's end

    def run(part):
        together.wait()
        return [part]

    assert len(Streams(run, 2).run(np.zeros((16, 1)))[0]) == 16


def test_an_error_in_one_part_is_the_batchs_error():
    def run(part):
        if part[0] == 16:
            raise ValueError("no memory for this part")
        return [part]

    with pytest.raises(ValueError, match="no memory"):
        Streams(run, 2).run(np.arange(32))
