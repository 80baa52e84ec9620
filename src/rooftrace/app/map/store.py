"""Folders and scenes that are open, and tiles that were made, each as many as memory may hold."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rooftrace.app.map.catalogue import Catalogue
from rooftrace.app.map.results import Results, read_results
from rooftrace.app.map.scene import MapScene
from rooftrace.core.errors import RooftraceError
from rooftrace.models.bundle import read_bundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.predictor import default_bundle

__all__ = ["Recent", "Store"]

_SCENES = 4
_FOLDERS = 16
_TILE_BYTES = 64 * 2**20

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps what was used last. Threads share it.

    Args:
        most: of the weights of what is kept, together.
        weight: of a value.
    """

    def __init__(self, most: int, weight: Callable[[V], int] = lambda _: 1) -> None:
        self._most, self._weight = most, weight
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def put(self, key: K, value: V) -> None:
        with self._lock:
            if key in self._kept:
                self._held -= self._weight(self._kept.pop(key))
            self._kept[key] = value
            self._held += self._weight(value)
            while self._held > self._most and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._held -= self._weight(dropped)


@dataclass(frozen=True)
class _Opened:
    """A scene that is opened once, however many ask for it at the same time."""

    lock: threading.Lock
    scene: list[MapScene]


class Store:
    """Looks up what requests name.

    Args:
        catalogue: of the folders.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.tiles: Recent[Hashable, bytes] = Recent(_TILE_BYTES, len)
        self._scenes: Recent[tuple[Path, str], _Opened] = Recent(_SCENES)
        self._models: Recent[str, list[BundleSpec]] = Recent(_FOLDERS)
        self._lock = threading.Lock()

    def folder(self, id: str) -> Results | None:  # noqa: A002
        """A folder as it is now; None where the catalogue knows none by that id."""
        path = self.catalogue.folder(id)
        return None if path is None else read_results(path)

    def model(self, results: Results) -> BundleSpec | None:
        """The contract of the model that a run used, where it is still there."""
        told = results.run.get("bundle") or {}
        digest = str(told.get("sha256", ""))
        known = self._models.get(digest)
        if known is None:
            known = _find_model(digest, str(told.get("file", "")))
            self._models.put(digest, known)
        return known[0] if known else None

    def scene(self, id: str, name: str, *, anew: bool = False) -> MapScene | None:  # noqa: A002
        """One image of a folder; None where there is no such one.

        Args:
            anew: look whether its files have changed since it was opened.

        Raises:
            DataError: nothing says where it lies.
        """
        path = self.catalogue.folder(id)
        if path is None:
            return None
        opened = self._opened(path, name)
        with opened.lock:
            if opened.scene and not anew:
                return opened.scene[0]
            results = read_results(path)
            files = results.images.get(name)
            if files is None:
                opened.scene.clear()
                return None
            if not opened.scene or opened.scene[0].stamp != files.stamp:
                model = self.model(results)
                legend = None if model is None else model.legend
                opened.scene[:] = [MapScene(files, results.run, legend)]
            return opened.scene[0]

    def _opened(self, path: Path, name: str) -> _Opened:
        with self._lock:
            opened = self._scenes.get((path, name))
            if opened is None:
                opened = _Opened(threading.Lock(), [])
                self._scenes.put((path, name), opened)
            return opened


def _find_model(digest: str, file: str) -> list[BundleSpec]:
    """One, or none."""
    for read in (default_bundle, lambda: read_bundle(Path(file))):
        try:
            bundle = read()
        except RooftraceError:
            continue
        if bundle.sha256 == digest:
            return [bundle.spec]
    return []
