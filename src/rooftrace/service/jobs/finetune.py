"""The work of a training: draw the corrections of a review, fine-tune the start model, and compare.

Each step leaves its files in the folder of the job. A training that was killed resumes after its
last finished epoch.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from rooftrace.flows.finetune import FinetuneReport, run_finetune
from rooftrace.io.files import write_json
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.folders import CARD
from rooftrace.labels.kinds import open_source
from rooftrace.labels.split import Split, read_split, write_split
from rooftrace.models.bundle import ModelBundle, read_bundle
from rooftrace.service.jobs.job import (
    BUNDLE,
    CORRECTIONS,
    HELD_OUT,
    LABELS,
    START,
    TrainingOptions,
    TrainingProgress,
    progress_of_run,
)
from rooftrace.service.review.corrections import write_labelled_chips

_PROGRESS_EVERY_S = 1.0

_VAL_SHARE = 0.2
"""Share of the images that is held out."""

Send = Callable[[dict[str, Any]], None]


def finetune_job(folder: Path, training: TrainingOptions, send: Send) -> dict[str, Any]:
    """Fine-tune a model on the corrections of a review, and return the figures of the result.

    The folder `results` then has the new model, `verdict.json`, `report.html` and `split.json`.

    Args:
        folder: Folder of the job, with the start model, the corrections, and perhaps an earlier
            split.
        training: Options of the training.
        send: Function that sends progress to the server.

    Raises:
        ConfigError, DataError, BundleError, ExportError, MissingExtraError: See
            `write_labelled_chips` and `run_finetune`.
    """
    run, start = folder / "run", folder / START
    send({"progress": asdict(TrainingProgress())})
    data = _drawn(folder, read_bundle(start))
    resume = (run / "config.json").exists() and (run / "checkpoints" / "last.ckpt").exists()
    if not resume:
        shutil.rmtree(run, ignore_errors=True)
    with _reporting(run, send):
        report = run_finetune(
            data, run, model=str(start), minutes=training.minutes, val=_VAL_SHARE,
            split=_extended(folder, data), overrides=[f"export.name={training.name}"],
            resume=resume, console=Console(file=sys.stderr),
        )  # fmt: skip
    return _published(folder, report)


def _drawn(folder: Path, start: ModelBundle) -> SourceConfig:
    """Return the corrections of a review as data; draw them unless that was done before."""
    out = folder / LABELS / "chips"
    if not (out / CARD).exists():
        # The card is written last, so what an earlier process has left is not complete.
        shutil.rmtree(out, ignore_errors=True)
        return write_labelled_chips(folder / CORRECTIONS, out, start.spec)
    return SourceConfig(path=str(out), name="corrections")


def _extended(folder: Path, data: SourceConfig) -> Path | None:
    """Return the split file of the run; None if there is no earlier one to extend."""
    earlier, path = folder / HELD_OUT, folder / "split.json"
    if earlier.exists() and not path.exists():
        split = extended_split(read_split(earlier), open_source(data).ids)
        # The chips of a part may have no decision any more.
        if all(split.parts.values()):
            write_split(path, split)
    return path if path.exists() else None


def extended_split(earlier: Split, ids: tuple[str, ...]) -> Split:
    """Return a split of all images in which those of an earlier split stay in their parts.

    Otherwise the start model would be compared on images that it was trained on.

    Args:
        earlier: Split of an earlier training, with the parts `train` and `val`.
        ids: Ids of all labelled images.
    """
    part_of = earlier.part_of | dict.fromkeys(earlier.dropped, "dropped")
    parts = {part: [one for one in ids if part_of.get(one) == part] for part in ("train", "val")}
    new = [one for one in ids if one not in part_of]
    wanted = min(max(round(_VAL_SHARE * len(ids)) - len(parts["val"]), 0), len(new))
    # Evenly spread over the new images, whose order is that of their tasks.
    held_out = {new[number * len(new) // wanted] for number in range(wanted)}
    for one in new:
        parts["val" if one in held_out else "train"].append(one)
    return Split(seed=earlier.seed, parts={part: tuple(one) for part, one in parts.items()})


@contextmanager
def _reporting(run: Path, send: Send) -> Iterator[None]:
    """Send the progress of a run from a thread; a training has no callback across its steps."""
    ended = threading.Event()

    def report() -> None:
        last = None
        while not ended.wait(_PROGRESS_EVERY_S):
            now = progress_of_run(run)
            if now != last:
                send({"progress": asdict(now)})
                last = now

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _published(folder: Path, report: FinetuneReport) -> dict[str, Any]:
    """Copy what clients may download to `results`, and return the figures of the training."""
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    shutil.copyfile(report.bundle, results / BUNDLE)
    shutil.copyfile(report.page, results / "report.html")
    shutil.copyfile(Path(report.split.rpartition(":")[0]), results / "split.json")
    verdict: Mapping[str, Any] = report.to_json()
    write_json(results / "verdict.json", _without(verdict, str(folder)))
    test = report.tests[report.evaluation.headline].difference
    known = test.is_known
    return {
        "version": read_bundle(report.bundle).version,
        "verdict": report.verdict,
        "difference": test.value,
        "interval": [test.low, test.high] if known else None,
        "scenes": verdict["scenes"],
        "epochs": report.trained.epochs,
        "figures": verdict["figures"],
        "notes": report.notes,
    }


def _without(value: Any, folder: str) -> Any:
    """Return a JSON value without the folder of the job in its texts."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.replace(json.dumps(folder, ensure_ascii=False)[1:-1] + "/", ""))
