"""What is said, and found out, where a training needs more memory than there is."""

from __future__ import annotations

from collections.abc import Callable

import rooftrace.models._torch  # noqa: F401

# isort: split
import lightning as L
import torch

from rooftrace.core.errors import TrainError
from rooftrace.train.config import TrainConfig
from rooftrace.train.device import release_memory
from rooftrace.train.distributed import Share
from rooftrace.train.feed import TrainingData
from rooftrace.train.loader import make_loader
from rooftrace.train.task import Task

__all__ = ["largest_that_fits", "out_of_memory"]


def largest_that_fits(attempt: Callable[[int], None], below: int) -> int:
    """The largest number for which `attempt` goes through; 0 where none does.

    It halves until one does, and then searches between that and the last that did not: at most
    2 · log2(below) attempts, and the answer is one of them.

    Args:
        attempt: raises where there is not the memory. What else goes wrong with so few samples,
            such as BatchNorm with one, is no answer either.
        below: is known to be too many.
    """
    fits, fails = 0, below
    while fails - fits > 1:
        middle = (fits + fails) // 2
        try:
            attempt(middle)
        except (RuntimeError, ValueError):
            fails = middle
        else:
            fits = middle
    return fits


def out_of_memory(task: Task, data: TrainingData, failed: L.Trainer) -> TrainError:
    """The error for a run that had not the memory; which batch would fit is tried on its device.

    Nothing that is still in use may hold the tensors of the failed step: neither an error nor its
    traceback. The task's weights are of no use afterwards.

    Args:
        failed: the trainer, which has ended.
    """
    config = task.config
    peak = _peak(failed)
    if torch.distributed.is_initialized():
        # The other processes are gone; nobody would answer.
        torch.distributed.destroy_process_group()
    each = config.batch_size // config.processes

    def attempt(samples: int) -> None:
        _train_and_validate(task, data, samples, failed)

    batch = largest_that_fits(attempt, each) * config.processes
    on_each = f", {each} on each of {config.processes} devices" if config.processes > 1 else ""
    return TrainError(
        f"Out of memory: batch_size = {config.batch_size}{on_each}, crop_px = {config.crop_px}, "
        f"of {config.model.architecture}{peak}.",
        remedy=_remedy(task, config, batch),
    )


def _train_and_validate(task: Task, data: TrainingData, samples: int, failed: L.Trainer) -> None:
    """A step of the optimiser, and a validation, with so many samples on one device."""
    release_memory()
    cuda = failed.strategy.root_device.type == "cuda"
    alone = {"batch_size": samples, "devices": 1, "nodes": 1}
    task.config = config = task.config.model_copy(update=alone)
    trained_on = Share(data.samples, range(samples))
    judged_on = [Share(tiles, [n % len(tiles) for n in range(samples)]) for tiles in data.tiles]
    trainer = L.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=[failed.local_rank] if cuda else 1,
        precision=failed.precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        task,
        make_loader(trained_on, config, samples, workers=0),
        [make_loader(tiles, config, samples, workers=0) for tiles in judged_on],
    )


def _remedy(task: Task, config: TrainConfig, batch: int) -> str:
    if not batch:
        return (
            "No smaller batch went through just now, down to one sample: lower crop_px or "
            'val_crop_px, choose a smaller encoder, or train with precision = "bf16".'
        )
    key = "batch_size" if task.automatic_optimization else "refine.batch_size"
    said = f"{key} = {batch} fits: a step and a validation with it went through just now."
    if not task.automatic_optimization:
        return said
    whole = config.samples_per_step
    smaller = next(b for b in range(batch, 0, -1) if whole % b == 0 and b % config.processes == 0)
    return (
        f"{said} batch_size = {smaller} with optimizer.accumulate = {whole // smaller} has as many "
        "samples in a step as before."
    )


def _peak(failed: L.Trainer) -> str:
    device = failed.strategy.root_device
    if device.type != "cuda":
        return ""
    used = torch.cuda.max_memory_allocated(device) / 2**30
    whole = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f", which had taken {used:.1f} of {whole:.1f} GiB"
