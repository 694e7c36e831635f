"""Batches that go through a network in parts."""

import threading

import numpy as np
import pytest

from xmr.engine.runtime.streams import MOST_STREAMS, PART_BYTES, PART_ITEMS, Streams, n_streams, parts_of


@pytest.mark.parametrize("n_items", [0, 1, 3, 7, 8, 16, 31, 32, 33, 255])
def test_parts_are_the_whole_batch_in_order(n_items):
    parts = parts_of(n_items, n_items * PART_BYTES)
    sizes = [part.stop - part.start for part in parts]
    assert [place for part in parts for place in range(n_items)[part]] == list(range(n_items))
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == max(1, n_items // PART_ITEMS)


def test_what_is_small_is_not_cut():
    assert len(parts_of(1000, PART_BYTES)) == 1
    assert len(parts_of(1000, 3 * PART_BYTES)) == 3


def test_streams_are_as_many_as_threads_up_to_a_limit():
    assert [n_streams(threads) for threads in (1, 2, 64)] == [1, 2, MOST_STREAMS]


@pytest.fixture
def cut_small(monkeypatch):
    """Batches of a few bytes are cut too."""
    monkeypatch.setattr("xmr.engine.runtime.streams.PART_BYTES", 1)


@pytest.mark.usefixtures("cut_small")
def test_outputs_of_the_parts_come_back_as_those_of_one_batch():
    batch = np.arange(66).reshape(33, 2)
    doubled, summed = Streams(lambda part: [part * 2, part.sum(axis=1)], 2).run(batch)
    np.testing.assert_array_equal(doubled, batch * 2)
    np.testing.assert_array_equal(summed, batch.sum(axis=1))


@pytest.mark.usefixtures("cut_small")
def test_parts_are_in_the_network_at_the_same_time():
    together = threading.Barrier(2, timeout=60)  # breaks, and fails the run, where one part waits for another's end

    def run(part):
        together.wait()
        return [part]

    assert len(Streams(run, 2).run(np.zeros((16, 1)))[0]) == 16


@pytest.mark.usefixtures("cut_small")
def test_an_error_in_one_part_is_the_batchs_error():
    def run(part):
        if part[0] == 16:
            raise ValueError("no memory for this part")
        return [part]

    with pytest.raises(ValueError, match="no memory"):
        Streams(run, 2).run(np.arange(32))


def test_a_batch_that_is_not_to_be_cut_stays_whole_and_none_runs_beside_another():
    running, sizes = threading.Lock(), []

    def run(part):
        assert running.acquire(blocking=False)
        sizes.append(len(part))
        running.release()
        return [part]

    streams = Streams(run, 1, is_cut=False)
    askers = [threading.Thread(target=streams.run, args=(np.zeros((40, 1)),)) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sizes == [40] * 8
