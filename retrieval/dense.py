"""Nearest vectors by inner product, with FAISS: exact, by a graph, or by compressed cells.

Johnson et al. 2017, "Billion-scale similarity search with GPUs"; Malkov & Yashunin 2016 (HNSW);
Jégou et al. 2011, "Product quantization for nearest neighbor search" (IVF-PQ).
"""

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from retrieval.ranking import Ranking, rank

DenseKind = Literal["flat", "hnsw", "ivfpq"]
DENSE_KINDS: tuple[str, ...] = get_args(DenseKind)
NEIGHBORS = 32  # edges per vector and layer of HNSW
CODE_BYTES = 48  # of a vector in IVF-PQ, with 8 bits per part of the vector
RESCORED = 20  # candidates per result whose exact scores are computed after IVF-PQ
MIN_TRAINED = 4096  # fewer vectors are searched exactly: too few to train IVF-PQ


class DenseIndex:
    """Search vectors, which may be memory-mapped.

    Args:
        vectors: (N, D) float32 of norm 1.
        index: Approximate FAISS index of them; None: exact search.
    """

    def __init__(self, vectors: np.ndarray, index: Any = None) -> None:
        self.vectors = vectors
        self.index = index

    @classmethod
    def build(cls, vectors: np.ndarray, kind: DenseKind = "flat") -> "DenseIndex":
        """Build an index; IVF-PQ of fewer than 4,096 vectors is an exact one."""
        import faiss

        count, dim = vectors.shape
        index: Any
        if kind == "flat" or (kind == "ivfpq" and count < MIN_TRAINED):
            return cls(vectors)
        if kind == "hnsw":
            index = faiss.IndexHNSWFlat(dim, NEIGHBORS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = 100
        else:
            cells = int(min(4 * count**0.5, count / 39))  # FAISS wants 39 vectors per cell
            parts = next(n for n in range(min(CODE_BYTES, dim), 0, -1) if dim % n == 0)
            quantizer = faiss.IndexFlatIP(dim)
            index = faiss.IndexIVFPQ(quantizer, dim, cells, parts, 8, faiss.METRIC_INNER_PRODUCT)
            index.cp.seed = 0
            index.train(np.ascontiguousarray(vectors[:: max(1, count // (cells * 64))]))
        index.add(np.ascontiguousarray(vectors))
        return cls(vectors, index)

    def save(self, path: Path) -> None:
        """Write the approximate index, if there is one; the vectors are not part of it."""
        import faiss

        if self.index is not None:
            faiss.write_index(self.index, str(path))

    @classmethod
    def open(cls, path: Path, vectors: np.ndarray) -> "DenseIndex":
        """Open a saved index, memory-mapped where FAISS can; without a file the exact one."""
        if not path.is_file():
            return cls(vectors)
        import faiss

        return cls(vectors, faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Ranking:
        """Return the rows of the `k` nearest vectors.

        Args:
            query: (D,) float32.
            k: At least 1.
            allowed: Which rows may be returned, (N,) bool; all by default.
        """
        import faiss

        query = np.ascontiguousarray(query[None], np.float32)  # (1, D)
        rows = None if allowed is None else np.flatnonzero(allowed)
        count = len(self.vectors) if rows is None else len(rows)
        if not count:
            return Ranking(np.empty(0, np.int64), np.empty(0))
        if rows is not None and (self.index is None or count < len(self.vectors) // 10):
            return rank(rows, self.vectors[rows] @ query[0], k)  # few rows: exactly
        if self.index is None:
            exact = faiss.METRIC_INNER_PRODUCT
            scores, found = faiss.knn(query, self.vectors, min(k, count), metric=exact)
            return rank(found[0], scores[0])
        wanted = min(count, k * RESCORED if self._is_compressed else k)
        _, found = self.index.search(query, wanted, params=self._parameters(wanted, rows))
        candidates = np.unique(found[0][found[0] >= 0])
        return rank(candidates, self.vectors[candidates] @ query[0], k)

    @property
    def _is_compressed(self) -> bool:
        return hasattr(self.index, "nprobe")

    def _parameters(self, wanted: int, rows: np.ndarray | None) -> Any:
        import faiss as library

        faiss: Any = library  # its types lack the parameters of a search
        options: dict[str, Any] = {} if rows is None else {"sel": faiss.IDSelectorBatch(rows)}
        if self._is_compressed:
            return faiss.SearchParametersIVF(nprobe=max(16, self.index.nlist // 4), **options)
        return faiss.SearchParametersHNSW(efSearch=max(256, 2 * wanted), **options)
