"""A training configuration is checked as a whole, and every recipe of the project is one."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from rooftrace.core.config import load_config, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.flows.train import run_train
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import choose_accelerator, choose_precision

DATA = {"train": [{"path": "a"}], "val": [{"path": "b"}]}
RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipes_are_configurations(recipe: Path) -> None:
    assert load_config(recipe, TrainConfig).data.train


def test_a_folder_of_labelled_images_leads_to_finetune(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; the path of a configuration") as caught:
        run_train(tmp_path, tmp_path / "run")
    assert caught.value.remedy.endswith(f"rooftrace finetune {tmp_path}")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"data": DATA, "augment": {"gsd_range_m": [0.2, 0.4]}}, "needs gsd_m"),
        ({"data": DATA, "gsd_m": 0.3, "finest_gsd_m": 0.4}, "above gsd_m, which is 0.3"),
        ({"data": DATA, "finest_gsd_m": 0.4}, "finest_gsd_m needs a gsd_m"),
        (
            {"data": DATA, "balance": "class", "augment": {"policy": "aerial"}},
            "set augment.prefer_buildings = 0",
        ),
        ({"data": DATA, "balance": "classes"}, "balance"),
        ({"data": DATA, "normalise": {"mean": [1], "std": [1, 2]}}, "mean has 1 value, but std"),
        ({"data": DATA, "optimizer": {"lrr": 1}}, "'optimizer.lrr'. Did you mean 'lr'"),
        ({"data": DATA, "model": {"filters": 8}}, "Did you mean 'model.options.filters'"),
        ({"data": {"train": [{"path": "a", "glb": "*"}], "val": []}}, "'data.train.0.glb'"),
        ({"data": DATA, "optimizer": {"lr": 0}}, "optimizer.lr"),
        ({"data": DATA, "crop_px": 16}, "crop_px"),
        ({"data": DATA, "precision": "fp8"}, "precision"),
        (
            {"data": DATA, "schedule": {"kind": "step", "min_lr": 1e-5, "patience": 1}},
            'kind = "step" has no min_lr and no patience; its own keys: factor, step_epochs.',
        ),
        ({"data": DATA, "schedule": {"step_epochs": 5}}, 'kind = "plateau" has no step_epochs'),
        ({"data": DATA, "optimizer": {"kind": "lion"}}, "optimizer.kind"),
        ({"data": DATA, "optimizer": {"momentum": 0.9}}, 'kind = "adamw" has no momentum'),
        ({"data": DATA, "optimizer": {"kind": "sgd", "betas": [0.5, 0.9]}}, "has no betas"),
        (
            {"data": DATA, "optimizer": {"kind": "sgd", "momentum": 0, "nesterov": True}},
            "nesterov = true needs a momentum",
        ),
        ({}, "data"),
    ],
)
def test_what_is_wrong_is_said(raw: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, TrainConfig, source="c.toml")
    assert expected in caught.value.message


def test_the_record_is_read_back_as_it_was() -> None:
    raw = {
        "data": DATA,
        "gsd_m": 0.3,
        "augment": {"policy": "strong", "gsd_range_m": [0.2, 0.4]},
        "optimizer": {"kind": "sgd"},
        "schedule": {"kind": "cosine"},
    }
    config = parse_config(raw, TrainConfig, source="c.toml")
    record = config.relative_to(Path("/somewhere"))
    assert record.pop("base") == "/somewhere"
    assert parse_config(dict(record), TrainConfig, source="record") == config


def test_devices_and_precisions() -> None:
    import torch

    assert choose_accelerator("cpu") == "cpu"
    assert choose_precision("fp32", "cpu") == "32-true"
    assert choose_precision("bf16", "cpu") == "bf16-mixed"
    assert choose_precision("fp16", "cuda") == "16-mixed"
    assert choose_precision("auto", "cpu") in ("32-true", "bf16-mixed")
    with pytest.raises(ConfigError, match="needs a GPU"):
        choose_precision("fp16", "cpu")
    if not torch.cuda.is_available():
        assert choose_accelerator("auto") == "cpu"
        with pytest.raises(ConfigError, match="sees no CUDA device"):
            choose_accelerator("cuda")
