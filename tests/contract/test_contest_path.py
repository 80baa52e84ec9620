"""A building contest from its files to its score, through the real command line.

The images are generated: training at 0.5 m per pixel, the test at 0.3 m, and nothing says so.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import command_line
from rooftrace.labels.rle import RleTable, decode_runs, encode_runs
from town import generate_scene

pytestmark = pytest.mark.campaign

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = {
    "contest-psp-densenet161": "options.psp_out_channels=16",
    "contest-unet-resnet50": "options.decoder_channels=[32, 16, 16, 8, 8]",
    "contest-deeplabv3plus-mobilenetv3": "options.decoder_channels=16",
}
"""The recipes, and what makes their decoders small."""

TRAIN_PX, TRAIN_GSD_M = 384, 0.5
TEST_PX, TEST_GSD_M = 224, 0.3
TESTED = 10
EMPTY = f"TEST_{TESTED - 1:05d}"
"""A meadow without buildings; the contest has such images, too."""

Masks = dict[str, NDArray[np.bool_]]
Submit = Callable[..., Masks]


def call(*arguments: object) -> dict[str, Any]:
    """Run a command that succeeds and return its JSON answer."""
    code, answer = command_line.call(*arguments)
    assert code == 0, answer
    return answer


def draw(seed: int, side: int, gsd_m: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image (y, x, RGB) of a suburb, and its mask."""
    scene = generate_scene(seed, (side, side), gsd_m, districts=["suburb"])
    return scene.image.transpose(1, 2, 0), scene.mask() > 0


def write_table(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")


@dataclass(frozen=True)
class Contest:
    """Files that the organisers hand out, and the truth that they keep."""

    folder: Path
    truth: Masks


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    folder = tmp_path_factory.mktemp("contest")
    rows, truth = [("img_id", "img_path", "mask_rle")], {}
    for kind in ("train", "test"):
        (folder / f"{kind}_img").mkdir()
    for number in range(6):
        image, mask = draw(number, TRAIN_PX, TRAIN_GSD_M)
        name = f"TRAIN_{number:04d}"
        assert cv2.imwrite(str(folder / "train_img" / f"{name}.png"), image[..., ::-1])
        rows.append((name, f"./train_img/{name}.png", encode_runs(mask, "row")))
    write_table(folder / "train.csv", rows)
    for number in range(TESTED):
        name = f"TEST_{number:05d}"
        image, mask = draw(100 + number, TEST_PX, TEST_GSD_M)
        if name == EMPTY:
            grain = np.random.default_rng(0).integers(-6, 7, image.shape)
            meadow = np.array([80, 110, 60]) + grain
            image, mask = meadow.astype(np.uint8), np.zeros_like(mask)
        assert cv2.imwrite(str(folder / "test_img" / f"{name}.png"), image[..., ::-1])
        truth[name] = mask
    asked = [(name, "-1") for name in truth]
    solved = [(name, encode_runs(mask, "row")) for name, mask in truth.items()]
    write_table(folder / "sample_submission.csv", [("img_id", "mask_rle"), *asked])
    write_table(folder / "solution.csv", [("img_id", "mask_rle"), *solved])
    return Contest(folder, truth)


@pytest.fixture(scope="module")
def models(contest: Contest) -> list[Path]:
    """One bundle of each recipe, on the contest's own table; all else is as the recipe says."""
    split = contest.folder / "split.json"
    call("split", contest.folder / "train.csv", "-o", split, "--val", 0.34, "--test", 0)
    quick = [
        f'data.train=[{{ path = "{contest.folder / "train.csv"}", gsd_m = {TRAIN_GSD_M} }}]',
        "data.val=[]", f"data.split={split}", "model.encoder=tu-test_resnet",
        "model.encoder_weights=none", "epochs=6", "samples_per_epoch=64", "batch_size=4",
        "val_tiles=4", "crop_px=96", "precision=fp32", "device=cpu",
    ]  # fmt: skip
    bundles = []
    for recipe, small in TINY.items():
        run = contest.folder / "runs" / recipe
        words = [word for setting in (*quick, f"model.{small}") for word in ("--set", setting)]
        call("train", RECIPES / f"{recipe}.toml", "-o", run, *words)
        bundles.append(run / "best_iou.rooftrace")
    return bundles


@pytest.fixture(scope="module")
def scale(contest: Contest) -> float:
    """Metres per pixel of the test images over those of the training, as the audit finds it."""
    answer = call(
        "inspect", contest.folder / "train.csv", "--gsd", TRAIN_GSD_M,
        "--against", contest.folder / "test_img",
    )  # fmt: skip
    (finding,) = (f for f in answer["findings"] if f["key"].startswith("shift.scale"))
    assert finding["key"] == "shift.scale", finding["detail"]
    (estimate,) = answer["comparison"]["scale"]["estimates"]
    assert estimate["low"] < TEST_GSD_M / TRAIN_GSD_M < estimate["high"]
    return float(estimate["factor"])


@pytest.fixture(scope="module")
def submit(contest: Contest) -> Submit:
    """Fill the sample in with what models find; the masks that the table then holds."""

    def run(models: list[Path], *options: object) -> Masks:
        sample, folder = contest.folder / "sample_submission.csv", contest.folder / "out"
        out = folder / "submission.csv"
        words = [word for path in models for word in ("-m", path)]
        images = contest.folder / "test_img"
        given = ("--outputs", "rle", "-o", folder, "--sample", sample)
        call("predict", images, *words, *options, *given)
        assert out.read_text().startswith("img_id,mask_rle\n")
        table = RleTable.read(out)
        assert [table.image_id(row) for row in table.rows] == list(contest.truth)
        shape = (TEST_PX, TEST_PX)
        return {
            table.image_id(row): decode_runs(table.runs(row), shape, "row", where="")
            for row in table.rows
        }

    return run


def dice(masks: Masks, truth: Masks) -> NDArray[np.float64]:
    """Return the Dice coefficient of each image; NaN where neither side has a building."""
    both = np.array([(masks[name] & truth[name]).sum() for name in truth])
    sizes = np.array([masks[name].sum() + truth[name].sum() for name in truth])
    return np.where(sizes, 2 * both / np.maximum(sizes, 1), np.nan)


def score(masks: Masks, truth: Masks) -> float:
    """Return the contest's score: its own code skips images where neither side has a building."""
    return float(np.nanmean(dice(masks, truth)))


def test_recipes_train_on_the_contests_table(models: list[Path]) -> None:
    for path in models:
        asked = tomllib.loads((RECIPES / f"{path.parent.name}.toml").read_text(encoding="utf-8"))
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        assert config["model"]["architecture"] == asked["model"]["architecture"]
        assert (config["loss"], config["gsd_m"]) == (asked["loss"], asked["gsd_m"])
        assert config["augment"].items() >= asked["augment"].items()


def test_scores_of_one_model_and_of_three(
    contest: Contest, models: list[Path], scale: float, submit: Submit
) -> None:
    at = ("--gsd", scale * TRAIN_GSD_M)
    single = [score(submit([path], *at), contest.truth) for path in models]
    average = score(submit(models, "--ensemble", "average", *at), contest.truth)
    assert min(single) > 0.35
    assert average > np.mean(single)
    untold = score(submit(models, "--ensemble", "average"), contest.truth)
    assert average > untold


def test_the_score_of_a_submission(contest: Contest, models: list[Path], submit: Submit) -> None:
    masks = submit(models, "--ensemble", "average", "--gsd", TEST_GSD_M)
    masks[EMPTY] = np.zeros_like(masks[EMPTY])
    submission = contest.folder / "final.csv"
    rows = [(name, encode_runs(mask, "row")) for name, mask in masks.items()]
    write_table(submission, [("img_id", "mask_rle"), *rows])
    answer = call(
        "evaluate", "--predictions", submission, "--truth", contest.folder / "solution.csv",
        "--size", f"{TEST_PX}x{TEST_PX}", "--only", "pixels",
    )  # fmt: skip
    each = dice(masks, contest.truth)
    assert np.isnan(each).sum() == 1
    # Here an image where neither side has a building counts as 1.
    assert answer["per_image"]["dice"] == pytest.approx(
        np.nan_to_num(each, nan=1.0).mean(), abs=1e-6
    )
    found = answer["intervals"]["per_image.dice"]
    assert (found["units"], found["count"]) == ("scene", TESTED)
    assert found["low"] < answer["per_image"]["dice"] < found["high"]
