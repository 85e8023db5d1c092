from __future__ import annotations

from itertools import islice

import numpy as np

from pipeline.training.order import GroupedByLength

LENGTHS = np.random.default_rng(0).integers(5, 300, 400).tolist()


def drawn(seed: int, epoch: int) -> list[int]:
    order = GroupedByLength(LENGTHS, 8, seed)
    order.set_epoch(epoch)
    return list(order)


def test_every_row_once_in_every_epoch() -> None:
    assert len(GroupedByLength(LENGTHS, 8, 0)) == 400
    for epoch in range(3):
        assert sorted(drawn(0, epoch)) == list(range(400))


def test_the_order_is_that_of_seed_and_epoch_alone() -> None:
    order = GroupedByLength(LENGTHS, 8, seed=3)
    list(order)
    order.set_epoch(2)
    list(islice(order, 5))  # an epoch that was cut short leaves no trace
    assert list(order) == drawn(3, 2)
    assert len({tuple(drawn(seed, epoch)) for seed, epoch in ((3, 2), (3, 1), (4, 2))}) == 3


def test_rows_of_a_batch_are_of_about_one_length() -> None:
    batches = np.take(LENGTHS, drawn(0, 0)).reshape(-1, 8)
    padded = batches.max(axis=1).sum() * 8
    mixed = np.reshape(LENGTHS, (-1, 8)).max(axis=1).sum() * 8
    assert padded < 1.15 * sum(LENGTHS) < mixed
