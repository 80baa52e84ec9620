"""Reports of a run besides its figures: pictures, TensorBoard, MLflow."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from rooftrace.core.config import load_config, parse_config  # noqa: E402
from rooftrace.core.errors import ConfigError, MissingExtraError  # noqa: E402
from rooftrace.io.legend import Legend  # noqa: E402
from rooftrace.models.bundle import read_bundle  # noqa: E402
from rooftrace.train.checkpoint import read_checkpoint  # noqa: E402
from rooftrace.train.config import (  # noqa: E402
    TrainConfig,
    WatchConfig,
)
from rooftrace.train.datamodule import open_data  # noqa: E402
from rooftrace.train.panel import PanelTile, draw_panel  # noqa: E402
from rooftrace.train.tracking import (  # noqa: E402
    choose_tiles,
    tracking_callbacks,
)

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


def watchers(folder: Path, run: Path, *overrides: str) -> list[Any]:
    config = load_config(folder / "tiny.toml", TrainConfig, overrides)
    return tracking_callbacks(config, run, open_data(config, folder))


def test_what_is_asked_for_is_what_watches(tiny_folder: Path, tmp_path: Path) -> None:
    assert [type(w).__name__ for w in watchers(tiny_folder, tmp_path)] == ["PanelCallback"]
    assert watchers(tiny_folder, tmp_path, "watch.panel=0") == []
    pytest.importorskip("tensorboard")
    both = watchers(tiny_folder, tmp_path, "watch.tensorboard=true")
    assert [type(w).__name__ for w in both] == ["PanelCallback", "TensorBoardCallback"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "extra", "override"),
    [
        ("tensorboard", "tensorboard", "watch.tensorboard=true"),
        ("mlflow", "mlflow", "watch.mlflow=http://localhost"),
    ],
)
def test_a_missing_package_is_an_error_before_anything_is_trained(
    package: str,
    extra: str,
    override: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=package) as caught:
        watchers(tiny_folder, tmp_path, override)
    assert f"rooftrace[{extra}]" in caught.value.remedy


@pytest.mark.campaign
@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "nonsense://here", "some/folder"])
def test_a_server_that_is_not_there(address: str, tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        watchers(tiny_folder, tmp_path, f"watch.mlflow={address}")
    assert address in caught.value.message
    assert caught.value.remedy


def test_no_password_is_recorded() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD"):
        parse_config({"mlflow": "https://me:secret@host"}, WatchConfig, source="c.toml")
    assert WatchConfig(mlflow="https://host:5000/path").mlflow == "https://host:5000/path"


def test_a_bundle_does_not_say_where_a_run_was_reported(tiny_run: TinyRun) -> None:
    assert "watch" not in read_bundle(tiny_run.bundle).spec.training


@pytest.mark.campaign
def test_a_run_may_be_watched_otherwise_when_it_goes_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    """TensorBoard then also receives the epochs before."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from rooftrace.train.loop import fit

    run = tmp_path / "run"
    for overrides in (["epochs=1"], ["watch.tensorboard=true"]):
        config = load_config(tiny_run.config, TrainConfig, overrides)
        fit(config, run, base=tiny_run.folder, resume=len(overrides[0]) > 8)
    events = reader.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("dice/val")] == [1, 2]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("train_loss", "loss/train"),
        ("val_iou/a town", "iou/val/a town"),
        ("lr", "lr"),
        ("images_per_s", "images_per_s"),
    ],
)
def test_names_in_tensorboard(name: str, shown: str) -> None:
    from rooftrace.train.tracking import tag

    assert tag(name) == shown


def test_parameters_are_as_mlflow_takes_them(tiny_folder: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.utils.validation import _validate_metric_name, _validate_param

    from rooftrace.train.tracking import _key, params_of

    config = load_config(
        tiny_folder / "tiny.toml",
        TrainConfig,
        ["export.attribution=" + "x" * 7000, 'data.labels.palette={building = "#FF0000"}'],
    )
    params = params_of(config)
    assert len(params["export.attribution"]) == 6000
    for key, value in params.items():
        _validate_param(key, value)
    for name in ("val_iou/a/b", "val_iou/../x", "val_iou/日本 (1)", "val_iou/" + "x" * 400):
        _validate_metric_name(_key(name))
