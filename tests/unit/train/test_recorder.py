"""metrics.csv and curves.svg for any figures of a task."""

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("torch")

from rooftrace.train.callbacks import plot_curves


def rows(epochs: int, folders: int = 1) -> list[dict[str, float]]:
    made = []
    for epoch in range(1, epochs + 1):
        done = 1 - math.exp(-epoch / 20)
        figures = {f"{p}_{f}": done for p in ("train", "val") for f in ("iou", "dice", "accuracy")}
        named = {f"val_iou/folder $_{n}^": done - 0.02 * n for n in range(folders)}
        losses = {"train_loss": 1 - done, "val_loss": 1.1 - done}
        made.append({"epoch": float(epoch), **losses, **figures, **named, "lr": 1e-3 / epoch})
    return made


SVG = "{http://www.w3.org/2000/svg}"


def read_charts(path: Path) -> list[ElementTree.Element]:
    root = ElementTree.parse(path).getroot()
    assert "light-dark(" in (root.findtext(f"{SVG}style") or "")
    return [one for one in root.iter(f"{SVG}svg") if one.get("class") == "chart"]


def texts(path: Path) -> list[str]:
    return [one.text or "" for one in ElementTree.parse(path).iter(f"{SVG}text")]


@pytest.mark.parametrize(("epochs", "folders"), [(1, 1), (1, 30), (200, 12)])
def test_curves_of_few_and_of_many(epochs: int, folders: int, tmp_path: Path) -> None:
    plot_curves(rows(epochs, folders), tmp_path / "curves.svg")
    charts = read_charts(tmp_path / "curves.svg")
    # Loss, and IoU with a line per folder where there are several.
    shape = "polyline" if epochs > 1 else "circle"
    thin = folders if folders > 1 else 0
    counts = [len(list(chart.iter(f"{SVG}{shape}"))) for chart in charts]
    assert counts == [2, 2 + thin]
    written = texts(tmp_path / "curves.svg")
    assert {"training", "validation"} <= set(written)
    done = 1 - math.exp(-epochs / 20)
    named = [f"folder $_{n}^: IoU {done - 0.02 * n:.3f}" for n in range(folders)]
    assert [text for text in written if text.startswith("folder")] == (named if thin else [])
    assert f"IoU (best {done:.3f}, epoch {epochs})" in written


def test_a_start_model_is_epoch_0_and_a_dashed_line(tmp_path: Path) -> None:
    plot_curves(rows(1), tmp_path / "curves.svg", {"val_loss": 2.0, "val_iou": 0.01})
    for chart in read_charts(tmp_path / "curves.svg"):
        # The validation's line has two epochs, the training's a dot.
        level, validation = sorted(
            chart.iter(f"{SVG}polyline"), key=lambda one: "stroke-dasharray" not in one.attrib
        )
        ends = [[point.split(",") for point in one.get("points", "").split()]
                for one in (level, validation)]  # fmt: skip
        assert ends[0][0] == ends[1][0]
        assert ends[0][0][1] == ends[0][1][1]
        assert ends[0][1][0] == ends[1][1][0]
