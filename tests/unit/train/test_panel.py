"""The picture of validation tiles that a run draws."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from rooftrace.core.config import load_config  # noqa: E402
from rooftrace.core.types import Sample  # noqa: E402
from rooftrace.labels.config import LabelConfig  # noqa: E402
from rooftrace.train.checkpoint import read_checkpoint  # noqa: E402
from rooftrace.train.config import TrainConfig  # noqa: E402
from rooftrace.train.panel import choose_tiles, draw_panel  # noqa: E402

if TYPE_CHECKING:
    from tests.conftest import TinyRun

BINARY = LabelConfig()


def tile(truth: np.ndarray, bands: int = 3) -> Sample:
    image = np.full((bands, *truth.shape), 120, np.float32)
    return Sample(image, truth.astype(np.uint8), np.ones(truth.shape, bool))


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def test_errors_are_in_proportion() -> None:
    truth = np.zeros((10, 10), np.uint8)
    truth[:4] = 1
    drawn = pixels(draw_panel([("town", tile(truth), np.roll(truth, 1, axis=0))], BINARY, ""))
    cell = drawn[-200:, -200:].astype(int)
    missed = (cell[..., 0] - cell[..., 2] > 60).mean()
    invented = (cell[..., 2] - cell[..., 1] > 40).mean()
    assert (missed, invented) == (pytest.approx(0.1), pytest.approx(0.1))


@pytest.mark.parametrize(("number", "columns"), [(0, 1), (1, 1), (3, 1), (4, 2), (9, 2)])
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_any_number_of_tiles_of_any_kind(number: int, columns: int, bands: int) -> None:
    rng = np.random.default_rng(bands)
    tiles = [
        (f"名前 {k}", Sample(
            rng.normal(0, 900, (bands, 50, 50)).astype(np.float32),
            rng.integers(0, 2, (50, 50), np.uint8), rng.random((50, 50)) > (k % 3) / 2,
        ), rng.integers(0, 2, (50, 50), np.uint8))
        for k in range(number)
    ]  # fmt: skip
    drawn = pixels(draw_panel(tiles, BINARY, "x" * 300))
    assert drawn.shape[1] // 800 == columns


class Tiles:
    """Stands for `EvalTiles` with `number` tiles; those in `full` have a building."""

    def __init__(self, number: int, full: set[int]) -> None:
        self._number, self._full = number, full

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> Any:
        return tile(np.full((4, 4), int(index in self._full), np.uint8))


def test_tiles_are_spread_over_the_folders_and_show_something() -> None:
    folders: Any = [Tiles(100, {7, 40, 99}), Tiles(1, set()), Tiles(50, set(range(50)))]
    chosen = choose_tiles(folders, 7)
    assert len(chosen) == len(set(chosen)) == 7
    assert [sum(f == folder for f, _ in chosen) for folder in range(3)] == [3, 1, 3]
    assert {i for f, i in chosen if f == 0} == {7, 40, 99}
    spread = sorted(i for f, i in chosen if f == 2)
    assert spread[0] < 16 <= spread[1] < 33 <= spread[2]
    assert chosen == choose_tiles(folders, 7)
    assert choose_tiles(folders[1:2], 7) == [(0, 0)]


@pytest.mark.campaign
def test_the_panel_of_a_run(tiny_run: TinyRun) -> None:
    with Image.open(tiny_run.run / "panel.png") as last:
        assert len(np.unique(np.asarray(last.convert("L")))) > 100
    rows = (tiny_run.run / "metrics.csv").read_text().splitlines()
    index = rows[0].split(",").index("val_iou")
    first, second = (float(row.split(",")[index]) for row in rows[1:])
    same = (tiny_run.run / "panel.png").read_bytes() == (
        tiny_run.run / "panel_best.png"
    ).read_bytes()
    assert same == (second > first)


@pytest.mark.campaign
def test_the_panel_changes_nothing(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Neither weights nor what the layers count: a run without it is the same run."""
    from rooftrace.train.loop import fit

    config = load_config(tiny_run.config, TrainConfig, ["watch.panel=0"])
    run = tmp_path / "run"
    fit(config, run, base=tiny_run.folder)
    assert not (run / "panel.png").exists()
    states = [
        read_checkpoint(folder / "checkpoints/last.ckpt")["state_dict"]
        for folder in (run, tiny_run.run)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
