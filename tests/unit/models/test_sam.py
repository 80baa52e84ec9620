"""Networks of the SAM family: loading, prompts, and folders that cannot be loaded."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
import transformers

from rooftrace.core.errors import BundleError
from rooftrace.core.types import Window
from rooftrace.models.clicks import Click, Prompt
from rooftrace.models.sam import load_sam
from sam_models import INPUT_PX, save_tiny

IMAGE = np.random.default_rng(5).integers(0, 256, (3, 40, 50), dtype=np.uint8)
BOX = Window(8, 10, 20, 24)
PROMPTS = {
    "box": Prompt(box=BOX),
    "points": Prompt((Click(18, 22), Click(2, 3, positive=False))),
    "both": Prompt((Click(18, 22),), box=BOX),
}

PROCESSORS = {
    "sam": (transformers.SamProcessor, (INPUT_PX / 50, INPUT_PX / 50)),
    "sam2": (transformers.Sam2Processor, (INPUT_PX / 50, INPUT_PX / 40)),
    "edgetam": (transformers.Sam2Processor, (INPUT_PX / 50, INPUT_PX / 40)),
    "sam_hq": (transformers.SamHQProcessor, (INPUT_PX / 50, INPUT_PX / 50)),
}
"""Processors of the library, and their pixels of the input per pixel of `IMAGE` (x, y)."""


RELATIVES = [pytest.param(name, marks=pytest.mark.campaign) for name in ("sam_hq", "edgetam")]


@pytest.fixture(scope="module", params=["sam", "sam2", *RELATIVES])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / request.param, request.param)


def by_the_library(folder: Path, prompt: Prompt) -> tuple[np.ndarray, float]:
    """Return mask and score by the pipeline that the documentation of transformers shows."""
    network = transformers.AutoModelForMaskGeneration.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    kind, scale = PROCESSORS[folder.name]
    # Its points and boxes are indices of pixels, whose centres are whole numbers.
    shift = 0.5 / np.array(scale)
    given: dict[str, object] = {}
    if prompt.clicks:
        points = np.array([(click.col, click.row) for click in prompt.clicks]) - shift
        given["input_points"] = [[points.tolist()]]
        given["input_labels"] = [[[int(click.positive) for click in prompt.clicks]]]
    if prompt.box is not None:
        box = prompt.box
        corners = np.array([[box.col, box.row], [box.col_stop, box.row_stop]]) - shift
        given["input_boxes"] = [[corners.ravel().tolist()]]
    inputs = kind(processor)(images=IMAGE.transpose(1, 2, 0), return_tensors="pt", **given)
    sizes = {name: inputs.pop(name) for name in (*inputs,) if name.endswith("_sizes")}
    if "input_boxes" in inputs:
        inputs["input_boxes"] = inputs["input_boxes"].float()
    if "input_points" in inputs:
        inputs["input_points"] = inputs["input_points"].float()
    with torch.inference_mode():
        made = network(**inputs, multimask_output=False)
    (mask,) = processor.post_process_masks(made.pred_masks, **sizes)
    return mask[0, 0].numpy(), float(made.iou_scores[0, 0, 0])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_answered_as_by_the_library(folder: Path, prompt: str) -> None:
    segmenter = load_sam(folder)
    found = segmenter.segment(segmenter.encode(IMAGE), PROMPTS[prompt])
    mask, score = by_the_library(folder, PROMPTS[prompt])
    assert found.mask.shape == IMAGE.shape[1:]
    assert found.mask.dtype == np.bool_
    assert 0 < mask.mean() < 1
    # Places are rounded to float32 in another order.
    assert (found.mask != mask).mean() < 0.005
    assert found.score == pytest.approx(score, abs=1e-4)


def test_of_one_point_the_best_of_three_objects_is_returned(folder: Path) -> None:
    segmenter = load_sam(folder)
    encoded = segmenter.encode(IMAGE)
    place = np.array([[18.0, 22.0]])
    alone = segmenter.segment(encoded, Prompt((Click(18, 22),)))
    network = transformers.AutoModelForMaskGeneration.from_pretrained(folder).eval()
    placed = torch.tensor((place * encoded.scale_yx - 0.5)[:, ::-1].copy())[None, None].float()
    with torch.inference_mode():
        made = network(
            **encoded.features, input_points=placed, input_labels=torch.ones(1, 1, 1).long()
        )
    assert made.iou_scores.shape[-1] == 3
    assert alone.score == pytest.approx(float(made.iou_scores.max()), abs=1e-5)


def test_a_repository_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match="nobody/no-such-model cannot be downloaded") as caught:
        load_sam("nobody/no-such-model")
    assert "give the folder" in caught.value.remedy


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"has no config\.json"),
        ("{}", "does not name the type"),
        ('{"model_type": 3}', "of the type 3"),
        ('{"model_type": "bert"}', r"of the type 'bert'; expected .* sam, sam2"),
        ('{"model_type": "sam"}', "has no weights; expected a folder"),
    ],
)
def test_a_folder_of_another_kind_is_refused(
    tmp_path: Path, config: str | None, message: str
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(BundleError, match=message):
        load_sam(tmp_path)
    with pytest.raises(BundleError, match=r"no folder .*/none; expected a folder with config.json"):
        load_sam(tmp_path / "none")


def test_pickles_are_not_opened(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    target = tmp_path / "ran"
    # A pickle that creates a file when it is loaded.
    (tmp_path / "pytorch_model.bin").write_bytes(
        b"cpathlib\nPath.touch\n(cpathlib\nPosixPath\n(V" + str(target).encode() + b"\ntRtR."
    )
    with pytest.raises(BundleError, match=r"pickles alone \(pytorch_model.bin\)"):
        load_sam(tmp_path)
    assert not target.exists()


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_code_beside_the_weights_does_not_run(folder: Path, tmp_path: Path) -> None:
    """A repository may name its own classes, which transformers loads only on request."""
    copy = copied(folder, tmp_path / "copy")
    ran = tmp_path / "ran"
    (copy / "own.py").write_text(f"open({str(ran)!r}, 'w').close()")
    for name, key in (
        ("config.json", "AutoModelForMaskGeneration"),
        ("preprocessor_config.json", "AutoImageProcessor"),
    ):
        content = json.loads((copy / name).read_text())
        content["auto_map"] = {key: "own.Own", "AutoConfig": "own.Own"}
        (copy / name).write_text(json.dumps(content))
    segmenter = load_sam(copy)
    assert segmenter.segment(segmenter.encode(IMAGE), PROMPTS["box"]).mask.any()
    assert not ran.exists()
