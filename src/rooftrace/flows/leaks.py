"""Whether what a model is judged on is what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rooftrace.core.config import expand_path
from rooftrace.core.errors import RooftraceError
from rooftrace.data.config import SourceConfig
from rooftrace.data.duplicates import NO_HASH
from rooftrace.data.landmarks import Landmarks, landmarks_of
from rooftrace.data.parallel import map_entries
from rooftrace.data.sameground import can_be_known, shared_ground
from rooftrace.data.source import Entry, Progress, SceneSet
from rooftrace.flows.trainingrecord import TrainingRecord
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.fingerprint import Fingerprint, fingerprint_of

__all__ = ["LeakPair", "LeakReport", "Status", "check_each", "check_leaks"]

Status = Literal["none", "found", "unknown"]
"""`unknown`: nothing was found, but not all that the model was trained on could be looked at."""


@dataclass(frozen=True)
class LeakPair:
    """A scene that is judged on, and shows what was trained on.

    Args:
        scene_id: of the scene that is judged on.
        train_id: `SET/ID` of the scene that was trained on; where its id is not known here,
            `SET, scene N of M` in order of the ids.
        bits: in how many of 64 the hashes differ (of landmarks the median); None where it is the
            same scene of the same folder, by its id.
        likeness: 0..1; of the landmarks that lie where both scenes do the share that agrees, of
            copies of whole scenes the share of equal bits, 1 for the same scene.
    """

    scene_id: str
    train_id: str
    bits: float | None
    likeness: float


@dataclass(frozen=True)
class LeakReport:
    """What is known of scenes that are both trained and judged on.

    Args:
        status: `found` where there is any pair.
        checked: how many scenes were compared.
        pairs: the most alike first; of one scene, each scene that was trained on.
        notes: how it is known, and what is not; for the person to see.
    """

    status: Status
    checked: int
    pairs: tuple[LeakPair, ...]
    notes: tuple[str, ...]

    @property
    def scenes(self) -> tuple[str, ...]:
        """Ids of the scenes that show what was trained on, the most alike first."""
        return tuple(dict.fromkeys(pair.scene_id for pair in self.pairs))

    @property
    def note(self) -> str:
        """All notes as one text."""
        return " ".join(self.notes)

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "checked": self.checked,
            "scenes": len(self.scenes),
            "pairs": [asdict(pair) for pair in self.pairs],
            "notes": list(self.notes),
        }


def check_leaks(
    bundles: ModelBundle | Sequence[ModelBundle],
    source: SceneSet,
    folder: SourceConfig | None = None,
    *,
    base: Path | None = None,
    progress: Progress | None = None,
) -> LeakReport:
    """Look for ground that a model, or any member of an ensemble, was trained on.

    By ids, where `folder` is one that the bundle's record of its training names; by the fingerprint
    in the bundle; where it has none, by the folders of that record, as far as they are here.

    Args:
        bundles: the model, or the members of an ensemble.
        source: the scenes that are judged on; each is read once, a large one by windows.
        folder: where they come from; without it ids are not compared.
        base: where relative paths of the record start; default what `config.json` beside the
            bundle tells. Where neither is known, such folders count as not here.
        progress: called with the scenes of `source` that were read and that there are.

    Raises:
        DataError and its kinds: an image of `source` cannot be read.
        BundleError: a fingerprint is damaged.
    """
    members = [bundles] if isinstance(bundles, ModelBundle) else list(bundles)
    return _of_members(members, _Seen(source, progress), folder, base)


def check_each(
    bundles: Sequence[ModelBundle], source: SceneSet, folder: SourceConfig | None = None
) -> tuple[LeakReport, ...]:
    """As `check_leaks`, of several models that are judged on the same scenes, of an ensemble by its
    members; what is seen in a scene at one scale is looked for once.
    """
    seen = _Seen(source, None)
    return tuple(_of_members(one.members or (one,), seen, folder, None) for one in bundles)


def _of_members(
    members: Sequence[ModelBundle],
    seen: _Seen,
    folder: SourceConfig | None,
    base: Path | None,
) -> LeakReport:
    reports = [_check(TrainingRecord(bundle, base), seen, folder) for bundle in members]
    if len(reports) == 1:
        return reports[0]
    names = [bundle.spec.name for bundle in members]
    every: list[Status] = [report.status for report in reports]
    return LeakReport(
        "found" if "found" in every else "unknown" if "unknown" in every else "none",
        max(report.checked for report in reports),
        _ordered([
            replace(pair, train_id=f"{name}: {pair.train_id}")
            for name, report in zip(names, reports)
            for pair in report.pairs
        ]),
        tuple(f"{name}: {note}" for name, report in zip(names, reports) for note in report.notes),
    )  # fmt: skip


class _Seen:
    """The scenes that are judged on, looked at once for all models of the same metres."""

    def __init__(self, source: SceneSet, progress: Progress | None) -> None:
        self.source = source
        self._progress = progress
        self._looked: dict[tuple[float | None, float | None], tuple[Landmarks, ...]] = {}

    def landmarks(self, gsd_m: float | None, model_gsd_m: float | None) -> tuple[Landmarks, ...]:
        key = (gsd_m, model_gsd_m)
        if key not in self._looked:
            look = partial(_look, gsd_m=gsd_m, assumed_gsd_m=model_gsd_m)
            self._looked[key] = map_entries(self.source, look, progress=self._progress)
        return self._looked[key]


def _look(
    source: SceneSet, entry: Entry, *, gsd_m: float | None, assumed_gsd_m: float | None
) -> Landmarks:
    return landmarks_of(source.open_scene(entry), gsd_m, assumed_gsd_m=assumed_gsd_m)


def _check(record: TrainingRecord, seen: _Seen, folder: SourceConfig | None) -> LeakReport:
    pairs, notes = _by_id(record, seen.source, folder)
    if record.bundle.spec.fingerprint is not None:
        fingerprint, missing = record.bundle.spec.fingerprint, 0
        notes.append("Compared with the fingerprint of the training scenes in the bundle.")
        if fingerprint.share < 1:
            notes.append(f"It is of an even sample, {fingerprint.share:.0%}, of these.")
    else:
        here = [one for one in record.train if one is not None]
        missing = len(record.train) - len(here)
        if not here:
            notes.append(
                "The bundle has no fingerprint of its training scenes, and "
                + (
                    "none of the folders that it was trained on is here."
                    if record.train
                    else "it does not tell what it was trained on."
                )
            )
            return LeakReport(
                "found" if pairs else "unknown", len(seen.source) if pairs else 0,
                _ordered(pairs), tuple(notes),
            )  # fmt: skip
        notes.append(
            "The bundle has no fingerprint of its training scenes; compared with "
            f"{len(here)} of the {len(record.train)} folders that it was trained on, as they are "
            "here now."
        )
        fingerprint = fingerprint_of(
            [(one.name, tuple(one)) for one in here], record.bundle.spec.gsd_m
        )
    looked = seen.landmarks(fingerprint.gsd_m, record.bundle.spec.gsd_m)
    pairs += _by_sight(record, fingerprint, seen.source, looked, {p.scene_id for p in pairs})
    notes += _limits(fingerprint, looked)
    checked = sum(can_be_known(one) or one.whole != NO_HASH for one in looked)
    status: Status = "found" if pairs else "unknown" if missing or not checked else "none"
    return LeakReport(status, checked, _ordered(pairs), tuple(notes))


def _by_id(
    record: TrainingRecord, source: SceneSet, folder: SourceConfig | None
) -> tuple[list[LeakPair], list[str]]:
    """Scenes of the very folder that was trained on, and whether the threshold is of these."""
    if folder is None:
        return [], []
    try:
        path = expand_path(folder.path, Path(), key="path").resolve()
    except RooftraceError:
        return [], []
    trained, judged = record.ids_of(path, "train"), record.ids_of(path, "val")
    pairs = [
        LeakPair(scene_id, f"{trained[scene_id]}/{scene_id}", None, 1.0)
        for scene_id in source.ids
        if scene_id in trained
    ]
    count = sum(scene_id in judged for scene_id in source.ids)
    notes = [f"The model's threshold was chosen on {count} of these {len(source)} scenes."]
    return pairs, notes if count else []


def _by_sight(
    record: TrainingRecord,
    fingerprint: Fingerprint,
    source: SceneSet,
    looked: Sequence[Landmarks],
    known: set[str],
) -> list[LeakPair]:
    """Scenes that show what was trained on; not those that are `known`."""
    trained, numbers = fingerprint.unpacked(record.bundle.source)
    return [
        LeakPair(
            source.entries[one.first].id,
            _name_of(record, fingerprint, numbers[one.second]),
            one.bits,
            round(one.share, 3),
        )
        for one in shared_ground(looked, trained)
        if source.entries[one.first].id not in known
    ]


def _name_of(record: TrainingRecord, fingerprint: Fingerprint, number: int) -> str:
    """Of a scene that was trained on."""
    which, place = fingerprint.place_of(number)
    told = fingerprint.sets[which]
    # The folders of the record, if these are still the same.
    here = record.train[which] if len(record.train) == len(fingerprint.sets) else None
    if here is not None and (here.name, len(here)) == (told.name, told.scenes):
        return f"{told.name}/{here.ids[place]}"
    return f"{told.name}, scene {place + 1} of {told.scenes}"


def _limits(fingerprint: Fingerprint, looked: Sequence[Landmarks]) -> list[str]:
    """What would not have been found."""
    side = fingerprint.finds_px
    told = f"{side * fingerprint.gsd_m:.0f} m" if fingerprint.gsd_m else f"{2 * side} px"
    notes = [f"Parts that two scenes share are found from about {told} by {told}."]
    small = sum(not can_be_known(one) for one in looked)
    if small:
        notes.append(
            f"{small} of the {len(looked)} scenes are too small, or show too little, for that: "
            "these are found as whole copies alone."
        )
    return notes


def _ordered(pairs: Sequence[LeakPair]) -> tuple[LeakPair, ...]:
    return tuple(sorted(pairs, key=lambda p: (-p.likeness, p.bits or 0.0, p.scene_id, p.train_id)))
