"""`rooftrace train`: from a configuration to bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rooftrace.core.config import parse_config, read_config
from rooftrace.core.errors import MissingExtraError
from rooftrace.io.atomic import write_atomically
from rooftrace.io.console import print_plain

__all__ = ["TrainReport", "run_train"]


@dataclass(frozen=True)
class TrainReport:
    """What a run came to.

    Args:
        best: by name (`best_iou`, `best_loss`; of a refinement `refined`, by IoU, too): epoch (from
            1), value, bundle.
    """

    run: Path
    best: dict[str, tuple[int, float, Path]]
    epochs: int
    stopped_because: str
    images_per_s: float

    def to_json(self) -> dict[str, Any]:
        best = {
            name: {"epoch": epoch, "value": value, "bundle": str(bundle)}
            for name, (epoch, value, bundle) in self.best.items()
        }
        return {
            "run": str(self.run),
            **best,
            "epochs": self.epochs,
            "stopped_because": self.stopped_because,
            "images_per_s": round(self.images_per_s, 3),
        }


def run_train(
    config_path: Path,
    run: Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    console: Console | None = None,
) -> TrainReport:
    """Train as a TOML file says, and write `best_iou.rooftrace` and `best_loss.rooftrace`; with
    `[refine]` also `refined.rooftrace`.

    Args:
        config_path: see `train.config.TrainConfig`; relative paths in it start from its folder.
        run: the folder for all that comes out of it.
        overrides: `key.path=value`, over the file.
        resume: go on with the run that is in the folder, in the segmenter or in the refiner.
        console: where progress is shown.

    Raises:
        MissingExtraError: PyTorch and what belongs to it is not installed.
        ConfigError: torchrun started another number of processes than the file says.
        ConfigError, DataError, ExportError: see `train.fit` and `train.package`.
    """
    try:
        from rooftrace.train.config import TrainConfig
        from rooftrace.train.distributed import as_launched, is_first
        from rooftrace.train.fit import fit
        from rooftrace.train.package import package
        from rooftrace.train.tune.config import refuse_search
    except ImportError as error:
        raise MissingExtraError.of("train", "rooftrace train", error.name or "torch") from error

    raw = read_config(config_path, overrides)
    refuse_search(raw, source=str(config_path))
    config = as_launched(parse_config(raw, TrainConfig, source=str(config_path)))
    result = fit(config, run, base=config_path.parent, resume=resume, console=console)
    if not is_first(config):
        # One of several processes of a run: what is left to do is the first one's.
        raise SystemExit(0)

    def tell(line: str) -> None:
        print_plain(console, line)

    best: dict[str, tuple[int, float, Path]] = {}
    for name, (epoch, value, _) in result.trained.best.items():
        bundle = run / f"{name}.rooftrace"
        same = next((made for other, _, made in best.values() if other == epoch), None)
        if same is None:
            package(config, result, name, bundle, tell=tell)
        else:
            # One epoch was the best in both: to export it once more would give the same again.
            write_atomically(bundle, same.read_bytes())
        best[name] = (epoch, value, bundle)
    if config.refine is not None:
        from rooftrace.train.refine import REFINED_FROM, refine

        refined = refine(config, result, run, resume=resume, console=console)
        bundle = run / "refined.rooftrace"
        package(config, result, REFINED_FROM, bundle, refined=refined, tell=tell)
        epoch, value, _ = refined.trained.best["best_iou"]
        best["refined"] = (epoch, value, bundle)
    trained = result.trained
    return TrainReport(run, best, trained.epochs, trained.stopped_because, trained.images_per_s)
