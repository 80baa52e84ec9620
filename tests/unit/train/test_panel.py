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
from rooftrace.io.legend import Legend  # noqa: E402
from rooftrace.train.checkpoint import read_checkpoint  # noqa: E402
from rooftrace.train.config import TrainConfig  # noqa: E402
from rooftrace.train.panel import PanelTile, choose_tiles, draw_panel  # noqa: E402

if TYPE_CHECKING:
    from tests.conftest import TinyRun

BINARY = Legend(("background", "building"))
MISSED, FALSE, RIGHT, UNKNOWN = (213, 94, 0), (86, 180, 233), (235, 235, 235), (70, 60, 84)


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def count(picture: bytes, colour: tuple[int, ...]) -> int:
    return int((pixels(picture) == colour).all(axis=2).sum())


def tile(truth: np.ndarray, found: np.ndarray, valid: np.ndarray | None = None) -> PanelTile:
    image = np.full((3, *truth.shape), 120, np.float32)
    known = np.ones(truth.shape, bool) if valid is None else valid
    return PanelTile("town", image, truth.astype(np.uint8), known, found.astype(np.float32))


def test_errors_have_their_colours_in_proportion() -> None:
    truth, found = np.zeros((10, 10)), np.zeros((1, 10, 10))
    truth[:4] = 1
    found[0, 2:5] = 0.9
    valid = np.ones((10, 10), bool)
    valid[9] = False
    legend = draw_panel([], legend=BINARY, title="")
    drawn = draw_panel([tile(truth, found, valid)], legend=BINARY, title="epoch 1")
    area = 200 * 200
    for colour, share in ((MISSED, 0.2), (RIGHT, 0.2), (FALSE, 0.1)):
        assert count(drawn, colour) - count(legend, colour) == pytest.approx(share * area)
    # In truth, prediction and errors alike.
    assert count(drawn, UNKNOWN) - count(legend, UNKNOWN) == pytest.approx(0.3 * area)
    # 0.9 of white.
    assert count(drawn, (229, 229, 229)) == pytest.approx(0.3 * area)


def test_classes_have_their_own_colours() -> None:
    legend = Legend(("background", "house", "road", "water"), ("#000000", "#FF0000", "#00FF00",
                                                               "#0000FF"))  # fmt: skip
    truth = np.zeros((8, 8))
    truth[:4] = 2
    found = np.zeros((4, 8, 8))
    found[0], found[2, :2], found[1, 2:4] = 0.4, 0.8, 0.6
    drawn = draw_panel([tile(truth, found)], legend=legend, title="")
    assert count(drawn, (0, 255, 0)) >= 0.5 * 200**2  # the truth, and the legend
    assert count(drawn, (0, 204, 0)) == 0.25 * 200**2
    assert count(drawn, (153, 0, 0)) == 0.25 * 200**2
    assert count(drawn, MISSED) >= 0.25 * 200**2
    # The legend has the classes that occur, and only those.
    assert count(drawn, (255, 0, 0)) > 100
    assert count(drawn, (0, 0, 255)) == 0


@pytest.mark.parametrize("number", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_any_number_of_tiles_of_any_kind(number: int, bands: int) -> None:
    rng = np.random.default_rng(bands)
    shown = [
        PanelTile(
            f"名前 {k}", rng.normal(0, 900, (bands, 30, 50)).astype(np.float32),
            rng.integers(0, 2, (30, 50), np.uint8), rng.random((30, 50)) > (k % 3) / 2,
            rng.random((1, 30, 50), np.float32),
        )
        for k in range(number)
    ]  # fmt: skip
    drawn = pixels(draw_panel(shown, legend=BINARY, title="x" * 300))
    assert drawn.shape[1] == (8 + 2 * 812 + 28 if number > 3 else 8 + 812)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_network_that_has_diverged(classes: int) -> None:
    answer = np.full((classes, 8, 8), np.nan, np.float32)
    legend = Legend(("background", "house", "road")) if classes == 3 else BINARY
    drawn = draw_panel([tile(np.ones((8, 8)), answer)], legend=legend, title="")
    assert count(drawn, MISSED) >= 200**2


class Tiles:
    """Stands for `EvalTiles` with `number` tiles; those in `full` have a building."""

    def __init__(self, number: int, full: set[int]) -> None:
        self._number, self._full = number, full

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> Any:
        target = np.full((4, 4), int(index in self._full), np.uint8)
        return tile(target, np.zeros((1, 4, 4)))


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
        assert last.width == 8 + 812 if last.width < 1000 else 8 + 2 * 812 + 28
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
