"""The encoded samples of a run: their latents, and how far other latents lie from all of them."""

from __future__ import annotations

import numpy as np

from vaearr.errors import NoInputError
from vaearr.run import Run

MAX_SAMPLES = 10_000  # that distances are measured to
MAX_VALUES = 20_000_000  # of these samples, so that large spatial latents fit in memory
MAX_PAIRS = 500  # samples whose nearest neighbour is looked for
NEIGHBOURS = 5  # whose distance tells whether samples lie close together
FAR = 3.0  # times the usual distance: no sample looks like what is decoded there


def known_rows(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Numbers `(k,)`, ascending, and latents `(k, *shape)` of all encoded samples.

    Raises NoInputError where none is encoded.
    """
    blocks = list(run.latent_blocks())
    if not blocks:
        raise NoInputError(f"run {run.name!r} of {run.path} has no point with known latents; encode it again.")
    numbers = np.concatenate([block[0] for block in blocks])
    latents = np.concatenate([block[1] for block in blocks])
    order = np.argsort(numbers)
    return numbers[order], latents[order]


def filled(run: Run, latents: np.ndarray) -> np.ndarray:
    """Latents `(k, *shape)` that can be decoded: positions left out by a mask get their channel's mean."""
    flat = latents.reshape(-1, run.latent_shape[0], int(np.prod(run.latent_shape[1:])))
    is_known = np.isfinite(flat)
    if not is_known.any(2).all():
        raise NoInputError(f"a class of run {run.name!r} has no known latents; encode it again.")
    return np.where(is_known, flat, np.nanmean(flat, axis=2, keepdims=True)).reshape(latents.shape)


def typical_index(latents: np.ndarray, mean: np.ndarray) -> int:
    """Find the sample that stands for others `(k, *shape)` with this mean.

    Of the half of the samples that have the closest neighbours, it is the one nearest the mean.
    Of all samples it would be a poor one: no crystal lies at the mean of several, patterns without
    contrast do.
    """
    from sklearn.neighbors import NearestNeighbors

    candidates = evenly_chosen(len(latents), MAX_SAMPLES)
    rows = latents[candidates].reshape(len(candidates), -1)
    neighbours = min(NEIGHBOURS, len(rows) - 1)
    if neighbours:
        distances, _ = NearestNeighbors().fit(rows).kneighbors(n_neighbors=neighbours)
        is_close = distances[:, -1] <= np.median(distances[:, -1])
        candidates, rows = candidates[is_close], rows[is_close]
    offsets = rows - mean.reshape(1, -1)
    return int(candidates[(offsets**2).sum(1).argmin()])


def evenly_chosen(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


class Samples:
    """Encoded samples of a run, at most 10 000, evenly chosen.

    `numbers` of the samples in the grid, `latents` as the decoder takes them, and `usual_distance`,
    the median Euclidean distance of a sample to its nearest neighbour.
    """

    def __init__(self, run: Run) -> None:
        from sklearn.neighbors import NearestNeighbors

        numbers, latents = known_rows(run)
        size = min(MAX_SAMPLES, max(2, MAX_VALUES // latents[0].size))
        chosen = evenly_chosen(len(numbers), size)
        self.numbers = numbers[chosen]
        self.latents = filled(run, latents[chosen]).astype("f4")
        self._index = NearestNeighbors().fit(self.latents.reshape(len(chosen), -1))
        self.usual_distance = self._median_distance()

    def _median_distance(self) -> float:
        count = len(self.numbers)
        if count < 2:
            return float("nan")
        some = evenly_chosen(count, MAX_PAIRS)
        rows = self.latents[some].reshape(len(some), -1)
        distances, _ = self._index.kneighbors(rows, n_neighbors=2)  # the first is the sample itself
        return float(np.median(distances[:, 1]))

    def nearest(self, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest sample to each of some latents `(k, *shape)`.

        Returns its index among these samples and the distance to it, `(k,)` each.
        """
        rows = latents.reshape(len(latents), -1)
        distances, indices = self._index.kneighbors(rows, n_neighbors=1)
        return indices[:, 0], distances[:, 0]

    def warnings(self, distances: np.ndarray) -> list[str]:
        """State how many latents lie far from every sample; nothing where none does."""
        if not self.usual_distance > 0:
            return []
        count = int((distances > FAR * self.usual_distance).sum())
        if not count:
            return []
        ratio = float(np.median(distances)) / self.usual_distance
        return [
            f"{count} of {distances.size} decoded latents lie far from every sample (median distance "
            f"{ratio:.1f} times that of a sample to its neighbour); no pattern of these data need look like them."
        ]
