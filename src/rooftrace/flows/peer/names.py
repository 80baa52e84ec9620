"""Which prediction is of which scene, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rooftrace.core.errors import LayoutError

__all__ = ["Matched", "listed", "match_names", "plain_name"]

_WORDS = (
    "masks?|pred|preds|predictions?|predicted|prob|probs|probability|probabilities|seg|segmentation"
    "|labels?|gt|buildings?|polygons?|footprints?|out|outputs?|results?"
)
_AFFIXES = re.compile(rf"[_\-. ](?:{_WORDS})$|^(?:{_WORDS})[_\-. ]", re.IGNORECASE)
_ENDINGS = frozenset(("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp", "jp2"))
_LISTED = 5


@dataclass(frozen=True)
class Matched:
    """What was found.

    Args:
        number: of each scene that has a prediction, by its id.
        missing: scenes that have none.
        surplus: predictions that are of no scene.
    """

    number: Mapping[str, int]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]

    def check(self, what: str, count: int, *, chosen: bool) -> None:
        """Refuse predictions that are not just of these scenes.

        Args:
            what: the predictions are called.
            count: of the predictions.
            chosen: whether the scenes are a choice of more, so that others may be predicted too.

        Raises:
            LayoutError: names what is missing, on either side.
        """
        surplus = () if chosen and self.number else self.surplus
        if not (self.missing or surplus):
            return
        told = []
        if self.missing:
            scenes = len(self.missing) + len(self.number)
            told.append(
                f"{len(self.missing):,} of {scenes:,} labelled scenes have no prediction: "
                f"{listed(self.missing)}"
            )
        if surplus:
            told.append(
                f"{len(surplus):,} of {count:,} predictions are of no labelled scene: "
                f"{listed(surplus)}"
            )
        raise LayoutError(
            f"{what} does not fit the labels: {'; '.join(told)}.",
            remedy="Give a prediction for each labelled scene, called as that is. With --part or "
            '--split fewer scenes are judged, and predictions of others left out: --part "[:]"',
        )


def match_names(ids: Sequence[str], names: Sequence[str], what: str) -> Matched:
    """Pair scenes and predictions.

    Names are tried as they are, without the ending of an image, with the folders as part of the
    name (`a/b` is `a__b`), without folders, and then without words such as `_mask` and `pred_`; the
    first that fits counts.

    Args:
        ids: of the scenes.
        names: of the predictions.
        what: the predictions are called, for errors.

    Raises:
        LayoutError: a name fits several scenes, or a scene two predictions.
    """
    by_form: list[dict[str, list[str]]] = []
    for scene_id in ids:
        for level, form in enumerate(_forms(scene_id)):
            while len(by_form) <= level:
                by_form.append({})
            fitting = by_form[level].setdefault(form, [])
            if scene_id not in fitting[-1:]:
                fitting.append(scene_id)
    number: dict[str, int] = {}
    surplus = []
    for index, name in enumerate(names):
        fitting = next(
            (found for form in _forms(name) for level in by_form if (found := level.get(form))), []
        )
        if len(fitting) > 1:
            raise LayoutError(
                f"{what}: {name!r} may be of {len(fitting)} scenes: {listed(fitting)}.",
                remedy="Put predictions into the folders that their scenes are in.",
            )
        if not fitting:
            surplus.append(name)
            continue
        other = number.setdefault(fitting[0], index)
        if other != index:
            raise LayoutError(
                f"{what}: {names[other]!r} and {name!r} are both of the scene {fitting[0]!r}.",
                remedy="Take one of them out.",
            )
    missing = tuple(scene_id for scene_id in ids if scene_id not in number)
    return Matched(number, missing, tuple(surplus))


def plain_name(name: str) -> str:
    """A name without the ending of an image."""
    stem, point, ending = name.rpartition(".")
    return stem if stem and point and ending.lower() in _ENDINGS else name


def listed(names: Sequence[str]) -> str:
    """A few names, and whether there are more."""
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")


def _forms(name: str) -> list[str]:
    """From the strictest to the loosest."""
    whole = name.replace("\\", "/").removeprefix("./")
    plain = plain_name(whole)
    forms = [plain, plain.replace("/", "__"), plain.rpartition("/")[2]]
    return [whole, *forms, *map(_bare, forms)]


def _bare(name: str) -> str:
    """A name without the words that say what a file is; never empty."""
    while (shorter := _AFFIXES.sub("", name)) and shorter != name:
        name = shorter
    return name
