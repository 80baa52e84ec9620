"""Training data leakage: scenes of an evaluation that show ground on which the model was trained.

The training data are known from the fingerprint in the bundle, or from the folders that the bundle
records, if they can be opened here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from rooftrace.audit.duplicates import NO_HASH
from rooftrace.audit.keypoints import (
    Keypoints,
    detect_keypoints,
    has_enough_keypoints,
    match_scenes,
)
from rooftrace.core.config import expand_path
from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import Progress
from rooftrace.labels.config import DataConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
from rooftrace.labels.split import read_split
from rooftrace.models.bundle import BUNDLED_MODELS, ModelBundle
from rooftrace.models.fingerprint import Fingerprint, fingerprint_of


class TrainingRecord:
    """Training data that a bundle records; data that cannot be understood or opened are None.

    Args:
        bundle: The model.
        base: Folder where relative paths start; default the one in `config.json` beside the bundle.
            If neither is known, relative paths are not followed: a folder of that name in the
            current directory would be another one.
    """

    def __init__(self, bundle: ModelBundle, base: Path | None) -> None:
        self.bundle = bundle
        self._base = base or _recorded_base(bundle)
        self._data: DataConfig | None = None
        with suppress(ValidationError):
            self._data = DataConfig.model_validate(bundle.spec.training.get("data"))

    @cached_property
    def train(self) -> tuple[SceneSet | None, ...]:
        """Each training set; None where it cannot be opened here."""
        return () if self._data is None else self._part(self._data.train, "train")

    @cached_property
    def val(self) -> tuple[SceneSet | None, ...]:
        """Each set on which the threshold was chosen."""
        if self._data is None:
            return ()
        if self._data.val:
            return tuple(self._open(given) for given in self._data.val)
        return () if self._data.split is None else self._part(self._data.train, "val")

    def ids_of(self, path: Path, part: Literal["train", "val"]) -> dict[str, str]:
        """Return the ids of a folder's scenes that are in a part, with the name of their set."""
        if self._data is None:
            return {}
        given = self._data.train if part == "train" or not self._data.val else self._data.val
        if path not in [self._found(one.path) for one in given]:
            return {}
        sets = zip(given, self.train if part == "train" else self.val)
        return {
            scene_id: one.name
            for config, one in sets
            if one is not None and self._found(config.path) == path
            for scene_id in one.ids
        }

    def _part(self, given: Sequence[SourceConfig], part: str) -> tuple[SceneSet | None, ...]:
        assert self._data is not None
        sets = tuple(self._open(one) for one in given)
        if self._data.split is None:
            return sets
        path = self._found(self._data.split)
        try:
            scenes = [name for one in sets if one is not None for name in one.all_ids]
            ids = () if path is None else read_split(path).match(scenes, path=path).ids(part)
        except RooftraceError:
            path = None
        return tuple(None if one is None or path is None else one.subset(ids) for one in sets)

    def _open(self, given: SourceConfig) -> SceneSet | None:
        assert self._data is not None
        try:
            if self._found(given.path) is None:
                return None
            return open_source(given, self._data.labels, self._base or Path("/"))
        except (RooftraceError, OSError, ValueError):
            return None

    def _found(self, text: str) -> Path | None:
        """Return the location of a recorded path if it is certain and exists."""
        try:
            path = expand_path(text, self._base or Path(), key="path")
            sure = self._base is not None or expand_path(text, Path("/"), key="path") == path
            return path.resolve() if sure and path.exists() else None
        except (RooftraceError, OSError, ValueError):
            # The text is no path here, such as a name that is too long.
            return None


def _recorded_base(bundle: ModelBundle) -> Path | None:
    """Return the folder where relative paths of the record start, if the run is still beside the
    bundle.
    """
    if bundle.source in BUNDLED_MODELS:
        return None
    try:
        record = json.loads(Path(bundle.source).with_name("config.json").read_bytes())
        return Path(record["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


Status = Literal["none", "found", "unknown"]
"""Result of the check; `unknown` means that nothing was found, but not all training data could be
compared."""


@dataclass(frozen=True)
class LeakedScene:
    """A scene of the evaluation that shows ground of a training scene.

    Args:
        scene_id: Id of the scene in the evaluation.
        train_id: `SET/ID` of the training scene; where its id is not known here, `SET, scene N of
            M` in the order of the ids.
        bits: Number of differing bits, of 64, between the hashes (for keypoints the median); None
            where it is the same scene of the same folder, by its id.
        likeness: Similarity in 0..1: the share of agreeing keypoints where both scenes lie, for
            copies of whole scenes the share of equal bits, for the same scene 1.
    """

    scene_id: str
    train_id: str
    bits: float | None
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


def check_leakage(
    bundles: ModelBundle | Sequence[ModelBundle],
    source: SceneSet,
    folder: SourceConfig | None = None,
    *,
    base: Path | None = None,
    progress: Progress | None = None,
) -> LeakageReport:
    """Look for ground on which a model, or any member of an ensemble, was trained.

    Scenes are compared by id where `folder` is one that the bundle's training record names. They
    are compared by content with the fingerprint in the bundle; if there is none, with the recorded
    folders that exist here.

    Args:
        bundles: The model, or the members of an ensemble.
        source: Scenes of the evaluation; each is read once, a large one by windows.
        folder: Folder of the scenes; without it ids are not compared.
        base: Folder where relative paths of the record start; default the one in `config.json`
            beside the bundle. If neither is known, relative paths are not followed.
        progress: Function called with the number of scenes read and their total number.

    Raises:
        DataError and its kinds: An image of `source` cannot be read.
        BundleError: A fingerprint is damaged.
    """
    members = [bundles] if isinstance(bundles, ModelBundle) else list(bundles)
    return _of_members(members, _SceneKeypoints(source, progress), folder, base)


def check_leakage_of_each(
    bundles: Sequence[ModelBundle], source: SceneSet, folder: SourceConfig | None = None
) -> tuple[LeakageReport, ...]:
    """Check several models on the same scenes as `check_leakage` does, an ensemble by its members.

    The keypoints of a scene at one scale are computed once.
    """
    seen = _SceneKeypoints(source, None)
    return tuple(_of_members(one.members or (one,), seen, folder, None) for one in bundles)


def _of_members(
    members: Sequence[ModelBundle],
    seen: _SceneKeypoints,
    folder: SourceConfig | None,
    base: Path | None,
) -> LeakageReport:
    reports = [_check(TrainingRecord(bundle, base), seen, folder) for bundle in members]
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

    def __init__(self, source: SceneSet, progress: Progress | None) -> None:
        self.source = source
        self._progress = progress
        self._known: dict[tuple[float | None, float | None], tuple[Keypoints, ...]] = {}

    def keypoints(self, gsd_m: float | None, model_gsd_m: float | None) -> tuple[Keypoints, ...]:
        key = (gsd_m, model_gsd_m)
        if key not in self._known:
            look = partial(_look, gsd_m=gsd_m, assumed_gsd_m=model_gsd_m)
            self._known[key] = map_entries(self.source, look, progress=self._progress)
        return self._known[key]


def _look(
    source: SceneSet, entry: SceneEntry, *, gsd_m: float | None, assumed_gsd_m: float | None
) -> Keypoints:
    return detect_keypoints(source.open_scene(entry), gsd_m, assumed_gsd_m=assumed_gsd_m)


def _check(
    record: TrainingRecord, seen: _SceneKeypoints, folder: SourceConfig | None
) -> LeakageReport:
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
                    else "it does not record what it was trained on."
                )
            )
            return LeakageReport(
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
    looked = seen.keypoints(fingerprint.gsd_m, record.bundle.spec.gsd_m)
    pairs += _by_content(record, fingerprint, seen.source, looked, {p.scene_id for p in pairs})
    notes += _limits(fingerprint, looked)
    checked = sum(has_enough_keypoints(one) or one.whole != NO_HASH for one in looked)
    status: Status = "found" if pairs else "unknown" if missing or not checked else "none"
    return LeakageReport(status, checked, _ordered(pairs), tuple(notes))


def _by_id(
    record: TrainingRecord, source: SceneSet, folder: SourceConfig | None
) -> tuple[list[LeakedScene], list[str]]:
    """Return scenes of the recorded training folder itself, and a note on the threshold."""
    if folder is None:
        return [], []
    try:
        path = expand_path(folder.path, Path(), key="path").resolve()
    except RooftraceError:
        return [], []
    trained, judged = record.ids_of(path, "train"), record.ids_of(path, "val")
    pairs = [
        LeakedScene(scene_id, f"{trained[scene_id]}/{scene_id}", None, 1.0)
        for scene_id in source.ids
        if scene_id in trained
    ]
    count = sum(scene_id in judged for scene_id in source.ids)
    scenes = f"{count} of these {len(source)} scenes" if len(source) > 1 else "this scene"
    notes = [f"The model's threshold was chosen on {scenes}."]
    return pairs, notes if count else []


def _by_content(
    record: TrainingRecord,
    fingerprint: Fingerprint,
    source: SceneSet,
    looked: Sequence[Keypoints],
    known: set[str],
) -> list[LeakedScene]:
    """Return scenes that show training ground, except those in `known`."""
    trained, numbers = fingerprint.unpack(record.bundle.source)
    return [
        LeakedScene(
            source.entries[one.first].id,
            _name_of(record, fingerprint, numbers[one.second]),
            one.bits,
            round(one.share, 3),
        )
        for one in match_scenes(looked, trained)
        if source.entries[one.first].id not in known
    ]


def _name_of(record: TrainingRecord, fingerprint: Fingerprint, number: int) -> str:
    """Return the name of a training scene."""
    which, place = fingerprint.place_of(number)
    named = fingerprint.sets[which]
    # The recorded folders, if they are still the same.
    here = record.train[which] if len(record.train) == len(fingerprint.sets) else None
    if here is not None and (here.name, len(here)) == (named.name, named.scenes):
        return f"{named.name}/{here.ids[place]}"
    return f"{named.name}, scene {place + 1} of {named.scenes}"


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
    return tuple(sorted(pairs, key=lambda p: (-p.likeness, p.bits or 0.0, p.scene_id, p.train_id)))
