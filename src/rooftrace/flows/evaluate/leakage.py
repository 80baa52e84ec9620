"""Training data leakage: scenes of an evaluation that show ground on which the model was trained.

The training scenes are known from the fingerprint in the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from rooftrace.audit.duplicates import NO_HASH
from rooftrace.audit.keypoints import (
    Keypoints,
    detect_keypoints,
    has_enough_keypoints,
    match_scenes,
)
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.fingerprint import Fingerprint

Status = Literal["none", "found", "unknown"]
"""Result of the check; `unknown` means that nothing was found, but not all could be compared."""


@dataclass(frozen=True)
class LeakedScene:
    """A scene of the evaluation that shows ground of a training scene.

    Args:
        scene_id: Id of the scene in the evaluation.
        train_id: The training scene: `SET, scene N of M` in the order of the ids.
        bits: Number of differing bits, of 64, between the hashes (for keypoints the median).
        likeness: Similarity in 0..1: the share of agreeing keypoints where both scenes lie, for
            copies of whole scenes the share of equal bits.
    """

    scene_id: str
    train_id: str
    bits: float
    likeness: float


@dataclass(frozen=True)
class LeakageReport:
    """Result of a leakage check.

    Args:
        status: `found` where there is any pair.
        checked: Number of scenes that were compared.
        pairs: The most similar first; a scene has one pair for each matching training scene.
        notes: Method of the check, and what it does not cover, for the user.
    """

    status: Status
    checked: int
    pairs: tuple[LeakedScene, ...]
    notes: tuple[str, ...]

    @property
    def scenes(self) -> tuple[str, ...]:
        """Ids of the scenes that show training ground, the most similar first."""
        return tuple(dict.fromkeys(pair.scene_id for pair in self.pairs))

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "checked": self.checked,
            "scenes": len(self.scenes),
            "pairs": [asdict(pair) for pair in self.pairs],
            "notes": list(self.notes),
        }


def check_leakage(bundles: Sequence[ModelBundle], source: SceneSet) -> tuple[LeakageReport, ...]:
    """Look for ground on which each of some models, or any member of an ensemble, was trained.

    Args:
        bundles: The models; an ensemble is checked by its members.
        source: Scenes of the evaluation; each is read once for all models of one scale, a large one
            by windows.

    Raises:
        DataError and its kinds: An image of `source` cannot be read.
        BundleError: A fingerprint is damaged.
    """
    scenes = _SceneKeypoints(source)
    return tuple(_of_members(one.members or (one,), scenes) for one in bundles)


def _of_members(members: Sequence[ModelBundle], scenes: _SceneKeypoints) -> LeakageReport:
    reports = [_check(bundle, scenes) for bundle in members]
    if len(reports) == 1:
        return reports[0]
    names = [bundle.spec.name for bundle in members]
    every: list[Status] = [report.status for report in reports]
    return LeakageReport(
        "found" if "found" in every else "unknown" if "unknown" in every else "none",
        max(report.checked for report in reports),
        _ordered([
            replace(pair, train_id=f"{name}: {pair.train_id}")
            for name, report in zip(names, reports)
            for pair in report.pairs
        ]),
        tuple(f"{name}: {note}" for name, report in zip(names, reports) for note in report.notes),
    )  # fmt: skip


class _SceneKeypoints:
    """Scenes of the evaluation, with keypoints computed once for all models of the same scale."""

    def __init__(self, source: SceneSet) -> None:
        self.source = source
        self._by_scale: dict[tuple[float | None, float | None], tuple[Keypoints, ...]] = {}

    def at(self, gsd_m: float | None, model_gsd_m: float | None) -> tuple[Keypoints, ...]:
        key = (gsd_m, model_gsd_m)
        if key not in self._by_scale:
            detect = partial(_detect, gsd_m=gsd_m, assumed_gsd_m=model_gsd_m)
            self._by_scale[key] = map_entries(self.source, detect)
        return self._by_scale[key]


def _detect(
    source: SceneSet, entry: SceneEntry, *, gsd_m: float | None, assumed_gsd_m: float | None
) -> Keypoints:
    return detect_keypoints(source.open_scene(entry), gsd_m, assumed_gsd_m=assumed_gsd_m)


def _check(bundle: ModelBundle, scenes: _SceneKeypoints) -> LeakageReport:
    source, fingerprint = scenes.source, bundle.spec.fingerprint
    notes: list[str] = []
    if fingerprint is None:
        notes.append("The bundle has no fingerprint of its training scenes.")
        return LeakageReport("unknown", 0, (), tuple(notes))
    notes.append("Compared with the fingerprint of the training scenes in the bundle.")
    if fingerprint.share < 1:
        notes.append(f"It is of an even sample, {fingerprint.share:.0%}, of these.")
    keypoints = scenes.at(fingerprint.gsd_m, bundle.spec.gsd_m)
    trained, numbers = fingerprint.unpack(bundle.source)
    pairs = [
        LeakedScene(
            source.entries[one.first].id,
            _name_of(fingerprint, numbers[one.second]),
            one.bits,
            round(one.share, 3),
        )
        for one in match_scenes(keypoints, trained)
    ]
    notes += _limits(fingerprint, keypoints)
    checked = sum(has_enough_keypoints(one) or one.whole != NO_HASH for one in keypoints)
    status: Status = "found" if pairs else "none" if checked else "unknown"
    return LeakageReport(status, checked, _ordered(pairs), tuple(notes))


def _name_of(fingerprint: Fingerprint, number: int) -> str:
    which, place = fingerprint.place_of(number)
    trained = fingerprint.sets[which]
    return f"{trained.name}, scene {place + 1} of {trained.scenes}"


def _limits(fingerprint: Fingerprint, looked: Sequence[Keypoints]) -> list[str]:
    """Return notes on what the check cannot find."""
    side = fingerprint.finds_px
    size = f"{side * fingerprint.gsd_m:.0f} m" if fingerprint.gsd_m else f"{2 * side} px"
    notes = [f"Parts that two scenes share are found from about {size} by {size}."]
    small = sum(not has_enough_keypoints(one) for one in looked)
    if small:
        notes.append(
            f"{small} of the {len(looked)} scenes are too small, or show too little, for that: "
            "these are found as whole copies alone."
        )
    return notes


def _ordered(pairs: Sequence[LeakedScene]) -> tuple[LeakedScene, ...]:
    return tuple(sorted(pairs, key=lambda p: (-p.likeness, p.bits, p.scene_id, p.train_id)))
