"""Split a data set by a fixed random order that does not depend on the seed of a run."""

import torch


def split_rows(total: int, size: int, seed: int) -> tuple[list[int], list[int]]:
    """Split the rows 0 … total - 1 into the remaining ones and `size` random ones, both ascending."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[size:].sort().values.tolist(), order[:size].sort().values.tolist()
