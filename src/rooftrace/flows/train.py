"""`rooftrace train`: from a configuration to bundles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rooftrace.core.config import parse_config
from rooftrace.core.errors import MissingExtraError
from rooftrace.core.system import sleep_while_waiting
from rooftrace.core.text import print_plain
from rooftrace.io.files import locked, write_atomically

if TYPE_CHECKING:
    from rooftrace.models.bundle import ModelBundle
    from rooftrace.models.spec import BundleSpec
    from rooftrace.train.config import TrainConfig
    from rooftrace.train.loop import FitResult


@dataclass(frozen=True)
class TrainReport:
    """The result of a training run.

    Args:
        run: Folder of the run.
        best: Bundles by name (`best_iou`, `best_loss`, and `refined` after a refinement): epoch
            (from 1), value, path. The value of `refined` is an IoU.
        epochs: Number of epochs of the segmenter.
        stopped_because: Reason for the end, as a clause.
        images_per_s: Training samples per second.
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
    """Train from a TOML file, and write `best_iou.rooftrace` and `best_loss.rooftrace`; with
    `[refine]` also `refined.rooftrace`.

    Args:
        config_path: The TOML file, see `train.config.TrainConfig`. Relative paths in it start from
            its folder.
        run: Folder for all output of the run.
        overrides: `key.path=value` settings that replace values of the file.
        resume: Continue the run that is in the folder, in the segmenter or in the refiner.
        console: Console for progress; None prints nothing.

    Raises:
        MissingExtraError: PyTorch or a package that comes with it is not installed.
        ConfigError: The file holds a search space, which needs `--trials`.
        ExportError: Another command trains in the folder.
        ConfigError, DataError, ExportError: See `train.loop` and `train.export_bundle`.
    """
    sleep_while_waiting()
    try:
        from rooftrace.train.config import TrainConfig, read_train_config
        from rooftrace.train.loop import fit
    except ImportError as error:
        raise MissingExtraError.of("train", "rooftrace train", error.name or "torch") from error

    raw = read_train_config(config_path, overrides)
    config = parse_config(raw, TrainConfig, source=str(config_path))
    with locked_run(run):
        result = fit(config, run, base=config_path.parent, resume=resume, console=console)
        return export_run(config, result, run, resume=resume, console=console)


@contextmanager
def locked_run(run: Path) -> Iterator[None]:
    """Lock the folder of a run. A run that wrote nothing leaves no folder.

    Raises:
        ExportError: Another process trains in the folder, or it cannot be written.
    """
    is_new = not run.exists()
    try:
        with locked(run / ".rooftrace.lock", str(run)):
            yield
    finally:
        if is_new:
            with suppress(OSError):
                run.rmdir()


def export_run(
    config: TrainConfig,
    result: FitResult,
    run: Path,
    *,
    resume: bool,
    console: Console | None,
    names: Sequence[str] = ("best_iou", "best_loss"),
    contract: BundleSpec | None = None,
    start: ModelBundle | None = None,
) -> TrainReport:
    """Refine if it is configured, and write the bundles of a run.

    Args:
        config: Configuration, as the bundles record it.
        result: The trained network.
        run: Folder of the run.
        resume: Continue a refinement that is in the folder.
        console: Console for progress; None prints nothing.
        names: The best epochs to write.
        contract, start: See `train.export_bundle.export_bundle`.
    """
    from rooftrace.train.export_bundle import export_bundle

    notify = partial(print_plain, console)
    best: dict[str, tuple[int, float, Path]] = {}
    for name in names:
        epoch, value, _ = result.trained.best[name]
        bundle = run / f"{name}.rooftrace"
        same = next((made for other, _, made in best.values() if other == epoch), None)
        if same is None:
            export_bundle(
                config, result, name, bundle, contract=contract, start=start, notify=notify
            )
        else:
            # One epoch is the best by both figures: a second export would give the same bytes.
            write_atomically(bundle, same.read_bytes())
        best[name] = (epoch, value, bundle)
    if config.refine is not None:
        from rooftrace.train.refine import REFINED_EPOCH, refine

        refined = refine(config, result, run, resume=resume, console=console)
        bundle = run / "refined.rooftrace"
        export_bundle(config, result, REFINED_EPOCH, bundle, refined=refined, notify=notify)
        epoch, value, _ = refined.trained.best["best_iou"]
        best["refined"] = (epoch, value, bundle)
    trained = result.trained
    return TrainReport(run, best, trained.epochs, trained.stopped_because, trained.images_per_s)
