"""Instruction sets of a run: the one that its engines use, and the test of an engine below it.

The bytes of results depend on the set, see `engines.processor`. A portable run uses AVX2 on every
processor, a resumed run the set of its first part, and a cluster the highest set that all workers
share. OpenVINO does not run every network below the processor's own set, so that an engine that is
limited runs one tile before the work begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.engines.base import ConstantEngine, Engine, run_quantised
from rooftrace.engines.processor import (
    PORTABLE_SET,
    can_be_capped,
    cap_instruction_set,
    this_processor,
)
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.predictor import Predictor

__all__ = [
    "check_limited",
    "check_portable",
    "first_set",
    "limit_to_portable",
    "processor_record",
    "use_first_set",
]

_CHECK_PX = 256
"""Approximate side of the tile on which an instruction set is tested."""


def limit_to_portable() -> None:
    """Let the engines of this process use AVX2 alone, before any of them is loaded.

    Raises:
        ConfigError: See `cap_instruction_set`.
    """
    cap_instruction_set(PORTABLE_SET)


def check_portable(engine: Engine) -> None:
    """Raise ConfigError for an engine that takes no limit, or whose answers depend on more."""
    members = getattr(engine, "settings", {}).get("members", [{"engine": engine.name}])
    others = {one["engine"] for one in members} - {"openvino"}
    if others:
        raise ConfigError(
            f"--portable holds for the engine openvino, but the model runs on "
            f"{', '.join(sorted(others))}.",
            remedy="Leave out --portable, or use the engine openvino.",
        )


def check_limited(predictor: Predictor) -> None:
    """Run one tile if the engines of this process are limited to a lower instruction set.

    Raises:
        ConfigError: The network does not run with this set.
    """
    processor, spec = this_processor(), predictor.bundle.spec
    if not processor.cap:
        return
    side = spec.side_near(_CHECK_PX)
    try:
        tile = np.zeros((1, len(spec.bands), side, side), spec.numpy_dtype)
        run_quantised(predictor.engine, tile)
    except RooftraceError as error:
        raise ConfigError(
            f"The model does not run with the instruction set {processor.instruction_set} on the "
            f"processor {processor.name}: {error.message}",
            remedy="Use another --precision. Without --portable, and in another folder, it runs "
            "with the processor's own set.",
        ) from error


def first_set(models: ModelSet, begun: Mapping[str, Any] | None) -> str | None:
    """Return the instruction set of the first part of a run of these models.

    Args:
        models: Models of the run.
        begun: Record of the model and program of an unfinished run; None if there is none.

    Returns:
        None if there is no first part, and for engines that take no limit, such as those on a GPU.
    """
    if begun is None or begun["engine"][0] == "onnxruntime":
        return None
    described = models.ready(lambda _: ConstantEngine())
    is_same = begun["bundle"] == described.bundle.sha256
    return (begun["instruction_set"] or None) if is_same else None


def use_first_set(wanted: str) -> list[str]:
    """Let the engines use the set of the first part, if this processor has it; return notes."""
    processor = this_processor()
    if wanted == processor.instruction_set or wanted not in processor.sets or not can_be_capped():
        # `RunFolder` refuses the set that is used, or lets it be mixed.
        return []
    cap_instruction_set(wanted)
    note = (
        f"The run began with the instruction set {wanted}, so it is resumed with it, although "
        f"this processor has {processor.instruction_set}."
    )
    return [note]


def processor_record(processors: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the fields of run.json on the processors of a run, see `RunFolder.processors`."""
    sets = {one["instruction_set"] for one in processors}
    return {"processors": list(processors), "mixed_instruction_sets": len(sets) > 1}
