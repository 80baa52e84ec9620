"""Images a second in training, against a plain PyTorch loop.

    python bench/train.py                    # see bench/README.md

Prints one JSON object. Every row is a process of its own; its first epoch is not counted.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import WORK, machine, measure_part, rounded, say, start

if TYPE_CHECKING:
    from rooftrace.train.config import TrainConfig

ROWS = ("ours", "plain", "tuned")
RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "default.toml"
TRAIN_SEEDS = range(1000, 1008)
VAL_SEEDS = range(2000, 2001)
SCENE_PX = 512


def main() -> dict[str, Any]:
    options = _options()
    before = machine()
    say("preparing the data")
    data = str(options.work / "pairs")
    measure_part(__file__, "prepare", data=data)
    given = {"data": data, "samples": options.samples, "epochs": 1 + options.epochs}
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(options.repeats):
        for name in options.rows:
            part = {"ours": {}, "plain": {"tuned": False}, "tuned": {"tuned": True}}[name]
            run = measure_part(__file__, "loop" if part else "ours", **given, **part)
            row = {**run.report, "seconds": round(run.seconds, 3), "peak_rss_mb": run.peak_rss_mb}
            say(f"{name}: {row['images_per_s']:.1f} images/s, {run.peak_rss_mb:.0f} MB")
            if name not in rows or row["images_per_s"] > rows[name]["images_per_s"]:
                rows[name] = row
    return {
        "benchmark": "train",
        "machine": before,
        **_settings(options),
        "rows": rows,
        "ratios": {
            f"{name}/{loop}": {
                "speed": rounded(rows[name]["images_per_s"] / rows[loop]["images_per_s"]),
                "memory": rounded(rows[name]["peak_rss_mb"] / rows[loop]["peak_rss_mb"]),
            }
            for loop in ("plain", "tuned")
            for name in rows
            if loop in rows and name != loop
        },
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=320, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=1, help="that count, after the first")
    parser.add_argument("--repeats", type=int, default=1, help="rows take turns, so many times")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--work", type=Path, default=WORK, help="folder for the data")
    options = parser.parse_args()
    if min(options.epochs, options.repeats, options.samples) < 1:
        parser.error("--samples, --epochs and --repeats start at 1")
    return options


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    recipe = _recipe()
    return {
        "model": {k: v for k, v in recipe["model"].items() if k != "encoder_weights"},
        "crop_px": recipe["crop_px"],
        "batch_size": recipe["batch_size"],
        "samples": options.samples,
        "epochs": options.epochs,
        "repeats": options.repeats,
    }


def _recipe() -> dict[str, Any]:
    return tomllib.loads(RECIPE.read_text(encoding="utf-8"))


# What follows runs in processes of its own.


def prepare(*, data: str) -> dict[str, Any]:
    """Write generated pairs, unless they are there already."""
    from rooftrace.testing import write_pairs

    for part, seeds in (("train", TRAIN_SEEDS), ("val", VAL_SEEDS)):
        folder = Path(data) / part
        missing = [
            seed for seed in seeds if not (folder / "masks" / f"synthetic_{seed:05d}.tif").exists()
        ]
        write_pairs(folder, missing, shape_yx=(SCENE_PX, SCENE_PX))
    return {}


def _config(data: str, samples: int, epochs: int) -> TrainConfig:
    """The recipe of the default model, from random weights, on the generated pairs."""
    from rooftrace.core.config import parse_config
    from rooftrace.train.config import TrainConfig

    recipe = _recipe()
    recipe["model"]["encoder_weights"] = "none"
    recipe["data"]["train"] = [{"path": f"{data}/train"}]
    recipe["data"]["val"] = [{"path": f"{data}/val"}]
    recipe |= {"samples_per_epoch": samples, "epochs": epochs, "device": "cpu"}
    return parse_config(recipe, TrainConfig, source=str(RECIPE))


def ours(*, data: str, samples: int, epochs: int) -> dict[str, Any]:
    """`rooftrace train`, without its last step, the bundles."""
    from rooftrace.train.device import choose_precision
    from rooftrace.train.fit import fit

    config = _config(data, samples, epochs)
    with tempfile.TemporaryDirectory(prefix="run.", dir=Path(data).parent) as run:
        fit(config, Path(run), base=Path())
        with Path(run, "metrics.csv").open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
    counted = [float(line["images_per_s"]) for line in lines[1:]]
    return {
        # Of equal numbers of images, the harmonic mean.
        "images_per_s": rounded(len(counted) / sum(1 / rate for rate in counted)),
        "precision": choose_precision(config.precision, "cpu"),
        "train_loss": [float(line["train_loss"]) for line in lines],
    }


def loop(*, data: str, samples: int, epochs: int, tuned: bool) -> dict[str, Any]:
    """A plain loop over the same samples: forward, loss, backward, step.

    Args:
        tuned: with an allocator that keeps memory, channels-last, and bf16 where the processor
            computes in it.
    """
    import numpy as np
    import torch
    from torch.utils.data import DataLoader, Dataset

    from rooftrace.core.types import Sample
    from rooftrace.models.losses import parse_loss
    from rooftrace.models.zoo import build_model
    from rooftrace.train.device import choose_precision, tune_allocator
    from rooftrace.train.feed import open_data

    config = _config(data, samples, epochs)
    bf16 = tuned and choose_precision("auto", "cpu") == "bf16-mixed"
    if tuned:
        tune_allocator()
    torch.manual_seed(config.seed)
    opened = open_data(config, Path())

    class Samples(Dataset[Sample]):
        def __len__(self) -> int:
            return len(opened.samples)

        def __getitem__(self, index: int) -> Sample:
            return opened.samples[index]

    def collate(batch: list[Sample]) -> tuple[torch.Tensor, ...]:
        arrays = ([getattr(s, part) for s in batch] for part in ("image", "target", "valid"))
        images, targets, valid = (torch.from_numpy(np.stack(array)) for array in arrays)
        return images, targets, valid

    net = build_model(config.model, bands=3, channels=1).train()
    if tuned:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in opened.statistics)
    loss_of = parse_loss(config.loss)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay
    )
    loader = DataLoader(
        Samples(), batch_size=config.batch_size, num_workers=0, collate_fn=collate, drop_last=True
    )
    seconds, images_seen, losses = 0.0, 0, []
    for epoch in range(epochs):
        opened.samples.epoch = epoch
        started, each = time.perf_counter(), []
        for images, targets, valid in loader:
            pixels = (images - mean) / std
            if tuned:
                pixels = pixels.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = net(pixels)
            loss = loss_of(logits, targets, valid)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            each.append(float(loss.detach()))
            if epoch > 0:
                images_seen += len(images)
        if epoch > 0:
            seconds += time.perf_counter() - started
        losses.append(round(float(np.mean(each)), 6))
    return {
        "images_per_s": rounded(images_seen / seconds),
        "precision": "bf16-mixed" if bf16 else "32-true",
        "train_loss": losses,
    }


if __name__ == "__main__":
    start(main, {"prepare": prepare, "ours": ours, "loop": loop})
