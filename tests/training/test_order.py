from __future__ import annotations

import pytest
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, skip_first_batches
from torch.utils.data import BatchSampler, Sampler
from transformers.trainer_pt_utils import BatchRebalanceSampler

from pipeline.training.order import GroupedByLength, let_epochs_through

LENGTHS = [3, 9, 4, 7, 2, 8, 6, 5, 1, 12, 11, 10, 15, 13, 14, 16]


def batches(rank: int, of: str) -> Sampler[list[int]]:
    if of == "batch_rebalance":
        order = BatchRebalanceSampler(LENGTHS, effective_batch_size=8, dp_size=2, grad_accum=2, rank=rank)
        return BatchSamplerShard(order, num_processes=1, process_index=0)
    order = BatchSampler(GroupedByLength(LENGTHS, 4, seed=5), batch_size=2, drop_last=False)
    return BatchSamplerShard(order, num_processes=2, process_index=rank)


def loader(rank: int, of: str) -> DataLoaderShard:
    made = DataLoaderShard(range(len(LENGTHS)), batch_sampler=batches(rank, of))
    let_epochs_through(made)
    return made


def read(one: DataLoaderShard) -> list[list[int]]:
    return [list(map(int, batch)) for batch in one]


@pytest.mark.parametrize("of", ["group_by_length", "batch_rebalance"])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_rest_of_an_epoch_is_the_same_after_a_resume_in_several_processes(rank: int, of: str) -> None:
    undisturbed = loader(rank, of)
    first = read(undisturbed)
    undisturbed.set_epoch(1)
    second = read(undisturbed)
    assert first != second
    resumed = skip_first_batches(loader(rank, of), 1)
    resumed.set_epoch(1)
    assert read(resumed) == second[1:]
