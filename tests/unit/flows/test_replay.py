"""Replay images: the start model's answers on them are trained on, and show what was forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError, LayoutError
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.finetune import run_finetune
from rooftrace.flows.replay import REPLAY_SHARE, ReplaySet, compare_on_replay, prepare_replay
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.split import Split, read_split, write_split
from rooftrace.models.bundle import default_bundle, read_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import open_data
from town import write_pairs

if TYPE_CHECKING:
    from tests.conftest import TinyRun

LABELS = LabelConfig()


def write_images(folder: Path, count: int, *, masks: bool = False) -> Path:
    """Write images that are bright on one side; their masks, if any, have no building."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 40, (40, 40, 3)).astype(np.uint8)
        pixels[:, 20 + number :] += 200
        for kind, data in [("images", pixels), ("masks", np.zeros((40, 40), np.uint8))][
            : 1 + masks
        ]:
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(data).save(folder / kind / f"{number}.png")
    return folder


def bright() -> Predictor:
    """Return a model to which bright pixels are buildings."""
    return Predictor(default_bundle(), PointwiseEngine())


def replay_set(folder: Path, run: Path, **options: Any) -> ReplaySet:
    return ReplaySet.of(SourceConfig(path=str(folder), **{"gsd_m": 0.4, **options}), run)


def test_the_answers_of_the_start_model_are_the_labels_and_a_part_is_held_out(
    tmp_path: Path,
) -> None:
    replay = replay_set(write_images(tmp_path / "other", 10, masks=True), tmp_path / "run")
    prepare_replay(replay, LABELS, bright(), seed=0)
    train, held_out = (open_source(one, LABELS) for one in (replay.train, replay.held_out))
    assert (len(train), len(held_out)) == (8, 2)
    assert not set(train.ids) & set(held_out.ids)
    assert train.share == REPLAY_SHARE
    parts = read_split(replay.folder / "split.json").parts
    assert parts == {"train": train.ids, "val": held_out.ids}
    for scene in (*train, *held_out):
        assert scene.label is not None
        assert scene.gsd_m == 0.4
        is_bright = scene.image.read().data[0] >= 0.305 * 255
        assert np.array_equal(scene.label.read().data == 1, is_bright)


@pytest.mark.campaign
def test_what_was_forgotten_is_compared_with_answers_and_with_labels(tmp_path: Path) -> None:
    replay = replay_set(write_images(tmp_path / "other", 10), tmp_path / "run")
    prepare_replay(replay, LABELS, bright(), seed=0)
    same = compare_on_replay(replay, LABELS, bright(), bright())
    assert (same.agreement.count, same.agreement.value, same.iou) == (2, 1.0, None)
    dimmed = Predictor(default_bundle(), PointwiseEngine(full_scale=2000.0))
    assert compare_on_replay(replay, LABELS, dimmed, bright()).agreement.value == 0

    labelled = replay_set(write_images(tmp_path / "labelled", 10, masks=True), tmp_path / "run2")
    prepare_replay(labelled, LABELS, bright(), seed=0)
    (tmp_path / "labelled/masks").rename(tmp_path / "none")
    for scene_id, mask in (("val", 255), ("train", 0)):
        for name in read_split(labelled.folder / "split.json").parts[scene_id]:
            (tmp_path / "labelled/masks").mkdir(exist_ok=True)
            data = np.full((40, 40), mask, np.uint8)
            Image.fromarray(data).save(tmp_path / f"labelled/masks/{name}.png")
    found = compare_on_replay(labelled, LABELS, dimmed, bright())
    assert found.iou is not None
    assert found.iou.first == 0
    assert found.iou.second > 0.3
    assert found.to_json()["iou"]["scenes"] == 2


def test_many_and_large_images_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rooftrace.flows.replay._MOST_IMAGES", 5)
    replay = replay_set(write_images(tmp_path / "other", 5), tmp_path / "run", chip_px=32)
    notes = prepare_replay(replay, LABELS, bright(), seed=0)
    assert "replay: 5 of 20 images (or chips of them) are used." in notes
    made = open_source(replay.train, LABELS)
    assert len(made) == 4
    assert max(max(scene.image.grid.shape) for scene in made) <= 32


def test_chips_of_one_image_are_in_one_part(tmp_path: Path) -> None:
    written = sorted((write_images(tmp_path / "a", 6) / "images").iterdir())
    for place, images in (("north", written[:3]), ("south", written[3:])):
        (tmp_path / "other" / place).mkdir(parents=True)
        for image in images:
            image.rename(tmp_path / "other" / place / image.name)
    replay = replay_set(tmp_path / "other", tmp_path / "run", chip_px=20)
    prepare_replay(replay, LABELS, bright(), seed=0)
    parts = read_split(replay.folder / "split.json").parts
    train, held_out = ({name.partition("@")[0] for name in parts[one]} for one in ("train", "val"))
    assert len(train | held_out) == 6
    assert held_out
    assert not train & held_out
    # Chips of a single image show ground of others, and a note says so.
    single = replay_set(tmp_path / "other/north/0.png", tmp_path / "b", chip_px=16)
    notes = prepare_replay(single, LABELS, bright(), seed=0)
    assert any("chips of one image" in note for note in notes)


def test_images_that_cannot_be_replayed_are_an_error(tmp_path: Path) -> None:
    write_images(tmp_path / "few", 3)
    write_images(tmp_path / "damaged", 6)
    (tmp_path / "damaged/images/2.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    write_images(tmp_path / "unplaced", 6)
    write_images(tmp_path / "mislabelled", 6, masks=True)
    for mask in (tmp_path / "mislabelled/masks").iterdir():
        mask.write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    for name, gsd_m, error, message in (
        ("few", 0.4, DataError, "has 3 images to replay; expected at least 5"),
        ("damaged", 0.4, DataError, "2.png"),
        ("mislabelled", 0.4, DataError, r"masks/\d.png"),
        ("unplaced", None, GeoreferenceError, "metres per pixel of the replay image .*no CRS"),
    ):
        replay = replay_set(tmp_path / name, tmp_path / "run", gsd_m=gsd_m)
        with pytest.raises(error, match=message):
            prepare_replay(replay, LABELS, bright(), seed=0)


def test_the_answers_have_one_scale(tmp_path: Path) -> None:
    """The folder of the answers has one value for all images; others would be lost."""
    write_images(tmp_path / "other", 10)
    for metres in ([0.4, 0.4], [0.3, 0.6]):
        tasks = [
            {
                "data": {"image": f"{n}.png", "scene_id": str(n), "gsd_m": metres[n % 2]},
                "annotations": [],
            }
            for n in range(10)
        ]
        path = tmp_path / "other/images/tasks.json"
        path.write_text(json.dumps(tasks))
        replay = replay_set(path, tmp_path / "run", gsd_m=None, kind="labelstudio")
        if metres[0] == metres[1]:
            prepare_replay(replay, LABELS, bright(), seed=0)
            assert {scene.gsd_m for scene in open_source(replay.train, LABELS)} == {0.4}
            continue
        with pytest.raises(DataError, match=r"have different metres per pixel.*: 0\.3, 0\.6\."):
            prepare_replay(replay, LABELS, bright(), seed=0)


def test_an_error_of_replay_images_leaves_no_run(tmp_path: Path) -> None:
    data, run = write_images(tmp_path / "data", 6, masks=True), tmp_path / "run"
    for mask in (tmp_path / "data/masks").iterdir():
        Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(mask)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        LayoutError, match=r"The images to replay cannot be read. .*it contains nothing"
    ):
        run_finetune(
            SourceConfig(path=str(data), gsd_m=0.4), run,
            replay=SourceConfig(path=str(tmp_path / "empty")),
        )  # fmt: skip
    assert not run.exists()


def test_the_split_does_not_apply_to_replay_sets(tmp_path: Path) -> None:
    for name in ("data", "replay"):
        write_images(tmp_path / name, 6, masks=True)
    write_split(tmp_path / "s.json", Split(parts={"train": ("0", "1", "2", "3"), "val": ("4",)}))
    raw = {
        "crop_px": 32,
        "data": {
            "train": [{"path": "data", "share": 0.75}], "split": "s.json",
            "replay": [{"path": "replay", "share": 0.25}],
        },
    }  # fmt: skip
    opened = open_data(parse_config(raw, TrainConfig, source="test"), tmp_path)
    assert [one.ids for one in opened.train] == [tuple("0123"), tuple("012345")]
    assert [one.ids for one in opened.val] == [("4",)]
    assert opened.notes == ("data: 1 of 6 scenes are in no part of s.json, and are not used.",)


@pytest.mark.campaign
def test_a_run_with_replay_reports_what_was_forgotten_and_resumes(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    write_pairs(tmp_path / "data", range(20, 28), shape_yx=(128, 128), gsd_m=0.3)
    write_pairs(tmp_path / "other", range(40, 46), shape_yx=(96, 96), gsd_m=0.3)
    data, replay = (SourceConfig(path=str(tmp_path / name)) for name in ("data", "other"))
    run, start = tmp_path / "run", str(tiny_run.bundle)
    fast = ["epochs=2", "samples_per_epoch=16", "watch.panel=0"]
    made = run_finetune(data, run, model=start, replay=replay, minutes=1, overrides=fast)
    found = made.to_json()["replay"]
    assert found == json.loads((run / "verdict.json").read_text())["replay"]
    assert found["images"] == found["iou"]["scenes"] == 1
    assert 0 <= found["agreement"]["value"] <= 1
    recorded = json.loads((run / "config.json").read_text())["data"]
    assert recorded["train"][0]["share"] + recorded["replay"][0]["share"] == 1

    other = replay.model_copy(update={"part": "[:5]"})
    for given in (None, other):
        with pytest.raises(ConfigError, match=r"replay.* of the run in .* not th.* given"):
            run_finetune(data, run, model=start, replay=given, resume=True)
    again = run_finetune(data, run, model=start, replay=replay, resume=True)
    assert read_bundle(again.bundle).parts == read_bundle(made.bundle).parts
    assert again.to_json()["replay"] == found
