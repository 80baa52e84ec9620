"""A graph that answers otherwise is not shipped."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Sample
from rooftrace.train.export_bundle import _check_parity, _tiles


class Tiles:
    """A folder whose images are the probabilities that `run` answers."""

    name, scenes = "tiles", ()

    def __init__(self, seed: int, dtype: type = np.float32) -> None:
        rng = np.random.default_rng(seed)
        self._samples = [
            Sample(
                rng.random((1, 8, 8), np.float32).astype(dtype),
                rng.integers(0, 2, (8, 8), np.uint8),
                rng.random((8, 8)) < 0.8,
            )
            for _ in range(11)
        ]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Sample:
        return self._samples[number]


def run(batch: np.ndarray) -> np.ndarray:
    return batch.astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_graph_that_answers_otherwise_is_refused(dtype: type) -> None:
    data = SimpleNamespace(tiles=(Tiles(0),), samples=SimpleNamespace(dtype=np.dtype(dtype)))
    batch = _tiles(data)  # type: ignore[arg-type]
    _check_parity(run, run, batch, "x")
    with pytest.raises(ExportError, match=r"differ by up to 0\.0500"):
        _check_parity(run, lambda batch: run(batch) + 0.05, batch, "x")
    with pytest.raises(ExportError, match="nan"):
        _check_parity(run, lambda batch: run(batch) * np.nan, batch, "x")
