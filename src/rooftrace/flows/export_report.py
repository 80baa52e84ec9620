"""What an export came to, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rooftrace.flows.export_parity import Parity
from rooftrace.models.artefact import Target

__all__ = ["ExportReport", "shown_rows"]


@dataclass(frozen=True)
class ExportReport:
    """What an export came to.

    Args:
        path: the file; of OpenVINO that which names the model.
        report: the JSON file beside it, which holds all of this.
        to, precision: as they were asked for.
        bundle: name and fingerprint of what it was made from.
        size_bytes: of all its files.
        tolerance: the most that `Parity.mask_change` may be.
        checked, calibrated: name of the data and how many tiles of it, of `tile_px`.
        parities: of each engine and output, the first being of the engine that it is for.
        notes: what was assumed or left out, for the person to see.
    """

    path: Path
    report: Path
    to: Target
    precision: str
    bundle: tuple[str, str]
    size_bytes: int
    tolerance: float
    checked: tuple[str, int]
    calibrated: tuple[str, int] | None
    tile_px: int
    parities: tuple[Parity, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`, and of the file beside the model."""
        name, sha256 = self.bundle
        return {
            "path": str(self.path),
            "report": str(self.report),
            "to": self.to,
            "precision": self.precision,
            "bundle": {"name": name, "sha256": sha256},
            "size_bytes": self.size_bytes,
            "tolerance": {"mask_change": self.tolerance},
            "check": _data_json(self.checked, self.tile_px),
            "calibration": _data_json(self.calibrated, self.tile_px),
            "parity": [parity.to_json() for parity in self.parities],
            "notes": list(self.notes),
        }


def _data_json(data: tuple[str, int] | None, tile_px: int) -> dict[str, Any] | None:
    return None if data is None else {"data": data[0], "tiles": data[1], "tile_px": tile_px}


def shown_rows(parities: Sequence[Parity]) -> Iterator[tuple[str, ...]]:
    """Of each parity what is shown of it, in a table."""
    for one in parities:
        where = one.engine if one.output == "probabilities" else f"{one.engine}, {one.output}"
        labels = (
            "–"
            if one.label_iou is None or one.label_iou_before is None
            else f"{one.label_iou_before:.3f} → {one.label_iou:.3f}"
        )
        yield (
            where, one.precision, f"{one.max_difference:.4f}", f"{one.mean_difference:.5f}",
            f"{one.changed_share:.3%}", f"{one.mask_iou:.4f}", labels,
        )  # fmt: skip
