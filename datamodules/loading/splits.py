"""Split a data set by a fixed random order that does not depend on the seed of a run."""

from collections.abc import Sequence

import torch

SPLIT_SEED = 0


def split_rows(total: int, size: int, seed: int) -> tuple[list[int], list[int]]:
    """Split the rows 0 … total - 1 into the rest and `size` random ones, both ascending."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[size:].sort().values.tolist(), order[:size].sort().values.tolist()


def stratified_split(classes: Sequence[int], fractions: Sequence[float]) -> list[list[int]]:
    """Split rows so that each class is divided by the same fractions.

    A class with too few rows for all splits stays in the first one.

    Args:
        classes: Class of each row.
        fractions: Fraction of each class in every split but the first, at least one row each.

    Returns:
        The rows of the first split (the rest), then of one split per fraction.
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    splits: list[list[int]] = [[] for _ in range(1 + len(fractions))]
    members: dict[int, list[int]] = {}
    for row, label in enumerate(classes):
        members.setdefault(label, []).append(row)
    for label in sorted(members):
        rows = members[label]
        counts = [max(1, round(fraction * len(rows))) for fraction in fractions]
        if sum(counts) >= len(rows):
            counts = [0] * len(fractions)
        order = torch.randperm(len(rows), generator=generator)
        parts = order.split([len(rows) - sum(counts), *counts])
        for split, part in zip(splits, parts, strict=True):
            split += [rows[position] for position in sorted(part.tolist())]
    return splits
