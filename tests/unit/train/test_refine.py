"""A refinement is a run within the run: recorded, resumed, bundled and run like the rest."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load, load_file, save_file

from rooftrace.core.config import load_config
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.flows import measure
from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.flows.train import TrainReport, run_train
from rooftrace.labels.config import SourceConfig
from rooftrace.models.bundle import ModelBundle, read_bundle
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import fit
from rooftrace.train.refine import RefineTask, refine
from training_runs import figures, weights

if TYPE_CHECKING:
    from tests.conftest import TinyRun

pytestmark = pytest.mark.campaign

REFINE = (
    "refine.epochs=3", "refine.filters=4", "refine.depth=3", "refine.batch_size=2",
    "refine.discriminator_filters=4", "refine.discriminator_layers=2", "refine.lr=2e-3",
)  # fmt: skip


@dataclass(frozen=True)
class RefinedRun:
    """The tiny run, refined on second thoughts."""

    tiny: TinyRun
    run: Path
    report: TrainReport

    @property
    def bundle(self) -> ModelBundle:
        return read_bundle(self.run / "refined.rooftrace")


@pytest.fixture(scope="module")
def refined_run(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> RefinedRun:
    run = tmp_path_factory.mktemp("refined") / "run"
    shutil.copytree(tiny_run.run, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "write_measured", only_refined(measure.write_measured))
        report = run_train(tiny_run.config, run, overrides=REFINE, resume=True)
    return RefinedRun(tiny_run, run, report)


def only_refined(export: Any) -> Any:
    """The segmenter's bundles are there already, and take time."""

    def made(*args: Any, refined: Any = None, **options: Any) -> Any:
        return (
            read_bundle(args[3]) if refined is None else export(*args, refined=refined, **options)
        )

    return made


def refined_again(tiny: TinyRun, run: Path, *overrides: str) -> None:
    """Go on in the folder of a run, without bundles."""
    config = load_config(tiny.config, TrainConfig, (*REFINE, *overrides))
    refine(config, fit(config, run, base=tiny.folder, resume=True), run, resume=True)


def test_what_a_refinement_leaves(refined_run: RefinedRun) -> None:
    run = refined_run.run
    inside = sorted(p.relative_to(run).as_posix() for p in (run / "refine").rglob("*.*"))
    assert inside == [
        "refine/checkpoints/best_iou.safetensors",
        "refine/checkpoints/best_loss.safetensors",
        "refine/checkpoints/last.ckpt",
        "refine/curves.svg",
        "refine/metrics.csv",
    ]
    rows = figures(run / "refine")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {
        "train_l1", "val_l1", "train_loss_generator", "train_loss_discriminator", "val_iou",
        "val_iou_coarse", "val_boundary_iou", "val_boundary_iou_coarse", "val_iou_coarse/data",
    } <= set(rows[0])  # fmt: skip
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    # The segmenter rests; the refiner does not.
    assert len({row["val_iou_coarse"] for row in rows}) == 1
    assert len({row["val_l1"] for row in rows}) == 3
    epoch, value, bundle = refined_run.report.best["refined"]
    assert bundle == run / "refined.rooftrace"
    ious = [float(row["val_iou"]) for row in rows]
    assert value == pytest.approx(max(ious), rel=1e-5)
    assert epoch == ious.index(max(ious)) + 1
    assert refined_run.report.to_json()["refined"]["epoch"] == epoch


def test_the_contract_of_a_refined_bundle(refined_run: RefinedRun) -> None:
    spec, plain = refined_run.bundle.spec, read_bundle(refined_run.tiny.bundle).spec
    assert spec.is_refined
    assert not plain.is_refined
    # The refiner's threshold is its own, the segmenter's the one that it has alone.
    assert spec.coarse_threshold == plain.threshold
    assert 0 < spec.threshold < 1
    assert spec.input_multiple_px == 32
    assert spec.training["refine"]["filters"] == 4
    assert spec.training["refine_epoch"] == refined_run.report.best["refined"][0]
    whole, coarse = spec.metrics
    assert coarse.protocol.endswith("the segmenter alone, without the refiner")
    assert coarse.values == plain.metrics[0].values
    assert "boundary_iou" in whole.values
    path, data = (
        refined_run.run / "refined.rooftrace",
        SourceConfig(path=str(refined_run.tiny.data)),
    )
    both = run_evaluate([path], data, None, EvalOptions(pixels_only=True))
    assert [one.name for one in both.columns] == [spec.name, f"{spec.name}, segmenter alone"]
    thresholds = [one.context["threshold"] for one in both.reports]
    assert thresholds == [spec.threshold, spec.coarse_threshold]
    assert [*both.comparisons] == [1]
    assert len(both.leaks) == 1
    packed = load(refined_run.bundle.part("weights.safetensors"))
    assert {name.split(".")[0] for name in packed} == {"segmenter", "generator"}


def test_interrupted_and_resumed_equals_uninterrupted(
    refined_run: RefinedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(refined_run.tiny.run, run)
    step = RefineTask.training_step

    def stopped(self: RefineTask, batch: Any, index: int) -> None:
        if (self.current_epoch, index) == (1, 1):
            raise OSError("no power")
        step(self, batch, index)

    monkeypatch.setattr(RefineTask, "training_step", stopped)
    with pytest.raises(OSError, match="no power"):
        refined_again(refined_run.tiny, run)
    monkeypatch.undo()
    assert len(figures(run / "refine")) == 1
    refined_again(refined_run.tiny, run)
    assert figures(run / "refine") == figures(refined_run.run / "refine")
    expected = weights(refined_run.run / "refine")
    assert all(
        torch.equal(value, expected[name]) for name, value in weights(run / "refine").items()
    )


def test_a_refiner_of_another_segmenter_is_not_resumed(
    refined_run: RefinedRun, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(refined_run.run, run)
    other = run / "checkpoints/best_iou.safetensors"
    save_file({k: v + 1 for k, v in load_file(other).items()}, other)
    with pytest.raises(ConfigError, match="over another segmenter"):
        refined_again(refined_run.tiny, run)
    (run / "refine/checkpoints/last.ckpt").write_bytes(b"half of a")
    with pytest.raises(DataError, match=r"refine/checkpoints/last\.ckpt cannot be used"):
        refined_again(refined_run.tiny, run)
