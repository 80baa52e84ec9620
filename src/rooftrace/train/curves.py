"""Learning curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rooftrace.io.atomic import replacing

__all__ = ["plot_curves"]

_PANELS = (("loss", "Loss"), ("iou", "IoU"), ("accuracy", "Pixel accuracy"))
_TRAIN, _VAL = "#4C72B0", "#C44E52"


def plot_curves(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Loss, IoU and accuracy over epochs, training against validation, as a PNG.

    Args:
        rows: one mapping an epoch, with `epoch`, `train_*`, `val_*` and `val_iou/FOLDER`.
    """
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [row["epoch"] for row in rows]
    style = {"marker": "o", "markersize": 3, "linewidth": 1.6}
    for axes, (key, title) in zip(figure.subplots(1, 3), _PANELS):
        axes.plot(
            epochs, [r[f"train_{key}"] for r in rows], color=_TRAIN, label="training", **style
        )
        axes.plot(epochs, [r[f"val_{key}"] for r in rows], color=_VAL, label="validation", **style)
        if key == "iou":
            for name in (k for k in rows[-1] if k.startswith("val_iou/")):
                values = [r.get(name, float("nan")) for r in rows]
                axes.plot(
                    epochs, values, linewidth=0.9, linestyle="--", label=name.split("/", 1)[1]
                )
            best = max(rows, key=lambda r: r["val_iou"])
            axes.axvline(best["epoch"], color="0.6", linewidth=0.8, linestyle=":")
            axes.set_title(f"{title} (best {best['val_iou']:.3f}, epoch {best['epoch']:.0f})")
        else:
            axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
