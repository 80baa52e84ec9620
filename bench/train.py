"""Images a second in training, compared with random tensors and with a plain loop.

Every row is a process, and rows take turns.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import RECIPE, Measured, argument_parser, by_turns, measure_part, rounded, say, start

if TYPE_CHECKING:
    from rooftrace.train.config import TrainConfig

ROWS = ("ours", "plain")
CHOICES: dict[str, dict[str, bool]] = {
    "as chosen": {},
    "no channels-last": {"channels_last": False},
    "fp32": {"bf16": False},
    "allocator as it is": {"allocator": False},
    "compiled": {"compiled": True},
    "AdamW not fused": {"fused": False},
    "AdamW foreach": {"fused": False, "foreach": True},
    "gradients kept": {"set_to_none": False},
}
"""Each differs from the first in one thing alone."""

TRAIN_SEEDS = range(1000, 1008)
VAL_SEEDS = range(2000, 2001)
SCENE_PX = 512
READY_BATCHES = 2
WARM_STEPS = 5


def main() -> dict[str, Any]:
    options = _options()
    say("preparing the data")
    data = options.work / "pairs"
    measure_part(
        __file__, "prepare", data=data, recipe=options.recipe, tiles="plain" in options.rows
    )
    given = {
        "data": data, "recipe": options.recipe, "samples": options.samples,
        "device": options.device,
    }  # fmt: skip
    parts: dict[str, Callable[[], Measured]] = {
        "ours": partial(
            measure_part, __file__, "ours", pairs=options.pairs, workers=options.workers, **given
        ),
        "plain": partial(measure_part, __file__, "plain", **given),
    }
    parts = {name: parts[name] for name in options.rows}
    for name in options.choices:
        parts[name] = partial(measure_part, __file__, "choice", settings=CHOICES[name], **given)
    runs = by_turns(
        parts, options.repeats, lambda name: parts[name]().row, "images_per_s", "peak_rss_mb"
    )
    return {
        **_settings(options),
        "rows": {name: _best(runs[name]) for name in options.rows},
        "ratios": _ratios(runs),
        "choices": _choices({name: runs[name] for name in options.choices}),
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--samples", type=int, default=320, help="samples per epoch")
    parser.add_argument("--pairs", type=int, default=3, help="measured epochs of each kind")
    parser.add_argument("--repeats", type=int, default=2, help="rounds over all rows")
    parser.add_argument(
        "--workers", default="auto", type=_workers, help="worker processes of rooftrace"
    )
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=ROWS)
    parser.add_argument(
        "--choices",
        nargs="*",
        choices=CHOICES,
        default=(),
        help="settings to measure one by one; without a value all",
    )
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    if min(options.pairs, options.repeats, options.samples) < 1:
        parser.error("--samples, --pairs and --repeats start at 1")
    if options.choices == []:
        options.choices = list(CHOICES)
    return options


def _workers(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    recipe = tomllib.loads(options.recipe.read_text(encoding="utf-8"))
    return {
        "model": {k: v for k, v in recipe["model"].items() if k != "encoder_weights"},
        "crop_px": recipe["crop_px"],
        "batch_size": recipe["batch_size"],
        "samples": options.samples,
        "pairs": options.pairs,
        "repeats": options.repeats,
    }


def _best(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return max(runs, key=lambda run: float(run["images_per_s"]))


def _ratios(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Pair by pair and round by round, as a machine that is disturbed is so for both sides."""
    ratios: dict[str, Any] = {}
    if "ours" in runs:
        pairs = [pair for run in runs["ours"] for pair in run["ours/random"]]
        ratios["ours/random"] = {"median": rounded(statistics.median(pairs)), "pairs": pairs}
    if {"ours", "plain"} <= runs.keys():
        both = list(zip(runs["ours"], runs["plain"]))
        rounds = [rounded(ours["images_per_s"] / plain["images_per_s"]) for ours, plain in both]
        memory = _best(runs["ours"])["peak_rss_mb"] / _best(runs["plain"])["peak_rss_mb"]
        ratios["ours/plain"] = {
            "median": rounded(statistics.median(rounds)),
            "rounds": rounds,
            "memory": rounded(memory),
        }
    return ratios


def _choices(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Each compared with the first, round by round."""
    first = next(iter(runs), "")
    answer = {}
    for name, rounds in runs.items():
        best = _best(rounds)
        ratios = [
            run["images_per_s"] / one["images_per_s"] for run, one in zip(rounds, runs[first])
        ]
        answer[name] = {
            "images_per_s": best["images_per_s"],
            "start_s": best["start_s"],
            f"speed/{first}": rounded(statistics.median(ratios)),
        }
    return answer


# What follows runs in processes of its own.


def prepare(*, data: str, recipe: str, tiles: bool) -> dict[str, Any]:
    """Write generated pairs, and the plain loop's tiles of them, unless they are there already."""
    from town import write_pairs

    for part, seeds in (("train", TRAIN_SEEDS), ("val", VAL_SEEDS)):
        folder = Path(data) / part
        missing = [
            seed for seed in seeds if not (folder / "masks" / f"synthetic_{seed:05d}.tif").exists()
        ]
        write_pairs(folder, missing, shape_yx=(SCENE_PX, SCENE_PX))
    if tiles and not Path(data, "tiles").exists():
        from plain_training import write_tiles
        from rooftrace.train.datamodule import open_data

        opened = open_data(_config(data, recipe, device="cpu"), Path())
        # Pixel for pixel: each scene is a tile.
        write_tiles(opened.train, Path(data, "tiles"), gsd_m=None)
    return {}


def _config(data: str, recipe: str, **changes: Any) -> TrainConfig:
    """The recipe, from random weights, on the generated pairs."""
    from rooftrace.core.config import parse_config
    from rooftrace.train.config import TrainConfig

    raw = tomllib.loads(Path(recipe).read_text(encoding="utf-8"))
    raw["model"]["encoder_weights"] = "none"
    raw["data"]["train"] = [{"path": f"{data}/train"}]
    raw["data"]["val"] = [{"path": f"{data}/val"}]
    return parse_config(raw | changes, TrainConfig, source=recipe)


def ours(
    *, data: str, recipe: str, samples: int, device: str, pairs: int, workers: int | str
) -> dict[str, Any]:
    """`rooftrace train` without the bundles at its end: an epoch of samples, then one of random
    tensors that lie in memory, and so on; the first pair does not count.
    """
    from unittest.mock import patch

    from rooftrace.train import loop as trainer
    from rooftrace.train.datamodule import choose_workers, make_loader
    from rooftrace.train.loop import choose_accelerator, choose_precision, fit

    epochs = 2 * (1 + pairs)
    config = _config(
        data, recipe, samples_per_epoch=samples, epochs=epochs, device=device, workers=workers
    )
    accelerator = choose_accelerator(config.device)

    def alternating(*given: Any, **settings: Any) -> Any:
        loader = make_loader(*given, **settings)
        return _Alternating(loader, config, accelerator) if settings.get("persistent") else loader

    with tempfile.TemporaryDirectory(prefix="run.", dir=Path(data).parent) as run:
        with patch.object(trainer, "make_loader", alternating):
            fit(config, Path(run), base=Path())
        with Path(run, "metrics.csv").open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
    rates = [float(line["images_per_s"]) for line in lines]
    sampled, random = rates[2::2], rates[3::2]
    return {
        # Of equal numbers of images, the harmonic mean.
        "images_per_s": rounded(statistics.harmonic_mean(sampled)),
        "random_images_per_s": rounded(statistics.harmonic_mean(random)),
        "ours/random": [rounded(a / b) for a, b in zip(sampled, random)],
        "device": accelerator,
        "workers": choose_workers(config, accelerator),
        "precision": choose_precision(config.precision, accelerator),
        "train_loss": [float(line["train_loss"]) for line in lines[::2]],
    }


class _Alternating:
    """A loader whose every second epoch is of ready batches."""

    def __init__(self, loader: Any, config: TrainConfig, accelerator: str) -> None:
        self._loader = loader
        self._batches = [_random_batch(config, seed) for seed in range(READY_BATCHES)]
        if accelerator == "cuda":
            self._batches = [_pinned(batch) for batch in self._batches]
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        self._epoch += 1
        if self._epoch % 2:
            yield from self._loader
        else:
            for number in range(len(self._loader)):
                yield self._batches[number % READY_BATCHES]


def _pinned(batch: Any) -> Any:
    parts = (batch.images, batch.targets, batch.valid)
    images, targets, valid = (part.pin_memory() for part in parts)
    return batch._replace(images=images, targets=targets, valid=valid)


def _random_batch(config: TrainConfig, seed: int) -> Any:
    import numpy as np

    from rooftrace.core.types import Sample
    from rooftrace.train.datamodule import collate

    rng = np.random.default_rng(seed)
    shape = (config.crop_px, config.crop_px)
    samples = [
        Sample(
            rng.uniform(0, 255, (3, *shape)).astype(np.float32),
            rng.integers(2, size=shape, dtype=np.uint8),
            np.ones(shape, dtype=bool),
        )
        for _ in range(config.batch_size)
    ]
    return collate(samples)


def _rate(step: Callable[[], None], images: int, steps: int, device: str) -> dict[str, float]:
    """Images a second over `steps`, after some that do not count, and what those took."""
    import torch

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    start_s = run(WARM_STEPS)
    return {"start_s": round(start_s, 3), "images_per_s": rounded(images * steps / run(steps))}


def plain(*, data: str, recipe: str, samples: int, device: str) -> dict[str, Any]:
    from plain_training import PlainLoop, infinite_batches
    from rooftrace.models.zoo import build_model
    from rooftrace.train.loop import choose_accelerator

    config = _config(data, recipe, device=device)
    accelerator = choose_accelerator(config.device)
    loop = PlainLoop(build_model(config.model, bands=3, channels=1), accelerator)
    size = config.batch_size
    batches = infinite_batches(
        Path(data, "tiles"), crop_px=config.crop_px, batch_size=size, seed=config.seed
    )
    losses = []

    def step() -> None:
        losses.append(loop.step(next(batches)))

    steps = max(1, samples // size)
    rate = _rate(step, size, steps, accelerator)
    return {
        **rate,
        "device": accelerator,
        "precision": "32-true",
        "train_loss": [round(statistics.fmean(losses[WARM_STEPS:]), 6)],
    }


def choice(
    *, data: str, recipe: str, samples: int, device: str, settings: dict[str, bool]
) -> dict[str, Any]:
    """Forward, loss, backward, step on random tensors, with the settings that rooftrace chooses
    but for those that are given.
    """
    import torch

    from rooftrace.core.system import keep_freed_memory
    from rooftrace.models.losses import parse_loss
    from rooftrace.models.zoo import build_model
    from rooftrace.train.loop import choose_accelerator, choose_precision

    config = _config(data, recipe, device=device)
    accelerator = choose_accelerator(config.device)
    if settings.get("allocator", True):
        keep_freed_memory()
    torch.manual_seed(config.seed)
    net = build_model(config.model, bands=3, channels=1).train().to(accelerator)
    batch = _random_batch(config, 0)
    images = ((batch.images - 128) / 64).to(accelerator)
    if settings.get("channels_last", True):
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        images = images.contiguous()
    truth, valid = batch.targets.to(accelerator), batch.valid.to(accelerator)
    chosen = choose_precision("auto", accelerator) == "bf16-mixed"
    bf16 = chosen and settings.get("bf16", True)
    loss_of = parse_loss(config.loss)
    optimizer = torch.optim.AdamW(
        net.parameters(),
        lr=config.optimizer.lr,
        # Both unsaid lets torch choose, as rooftrace does on a GPU.
        fused=settings.get("fused", True if accelerator == "cpu" else None),
        foreach=settings.get("foreach"),
    )
    forward: Callable[..., Any] = torch.compile(net) if settings.get("compiled") else net

    def step() -> None:
        optimizer.zero_grad(set_to_none=settings.get("set_to_none", True))
        with torch.autocast(accelerator, torch.bfloat16, enabled=bf16):
            logits = forward(images)
        loss_of(logits, truth, valid).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    size = config.batch_size
    return _rate(step, size, max(1, samples // size), accelerator)


if __name__ == "__main__":
    start(main, prepare, ours, plain, choice)
