"""The formula of docs/capacity.md: it gives the figures of textbooks, and enough workers."""

import pytest

from benchmarks.capacity import mean_wait, needed_workers, wait_of_95, waiting_probability


@pytest.mark.parametrize(
    ("workers", "load", "chance"),
    [(1, 0.5, 0.5), (1, 0.9, 0.9), (2, 1.0, 1 / 3), (2, 1.8, 0.8526), (5, 4.0, 0.5541), (10, 8.0, 0.4092)],
)
def test_probability_of_a_wait_is_that_of_erlangs_tables(workers: int, load: float, chance: float):
    assert waiting_probability(workers, load) == pytest.approx(chance, abs=2e-4)


def test_one_worker_waits_as_the_queue_with_one_server_does():
    rate, seconds = 30.0, 0.02
    share = rate * seconds
    assert mean_wait(1, rate, seconds) == pytest.approx(share * seconds / (1 - share))


def test_plan_has_the_fewest_workers_that_are_enough():
    rate, seconds, limit = 200.0, 0.02, 0.06
    workers = needed_workers(rate, seconds, limit, 0.015)
    assert rate * seconds < workers
    assert 0.015 + seconds + wait_of_95(workers, rate, seconds) <= limit
    assert workers == 5 or 0.015 + seconds + wait_of_95(workers - 1, rate, seconds) > limit


def test_what_no_number_of_workers_can_do_is_refused():
    with pytest.raises(ValueError, match="no number of workers"):
        needed_workers(1.0, 0.2, 0.1)
