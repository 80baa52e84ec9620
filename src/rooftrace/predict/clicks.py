"""Outline a building from clicks on it and beside it.

    segmenter = ClickSegmenter("tile.png", load_clicks(), gsd_m=0.15)
    answer = segmenter.click(row=120.5, col=88.5)
    answer = segmenter.click(row=140.5, col=90.5, positive=False)
    answer.outlines                     # polygons in pixels of the image

The network sees a square view of fixed size. The first view is 48 m wide, with the click in its
middle. The view is then fitted to the answer and the network is run again (the zoom-in of Sofiiuk
et al. 2022), so that a shed and a hall are both seen with enough pixels and enough surroundings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, DataError
from rooftrace.core.types import BoolArray, Sample, Window
from rooftrace.engines.base import Engine
from rooftrace.engines.select import load_engine
from rooftrace.io.pixels import prepare
from rooftrace.models.bundle import ModelBundle, click_bundle, read_bundle
from rooftrace.models.clicks import Click, draw_clicks
from rooftrace.models.spec import CLICK_BANDS
from rooftrace.predict.predictor import Input, as_source
from rooftrace.samples.augment import warp, window_under
from rooftrace.vector.prepare import VectorOptions
from rooftrace.vector.regularize import regularize
from rooftrace.vector.trace import trace

VIEW_PX = 160
"""Side of a view in pixels of the network's input, as in training."""

_MARGIN = 1.4
"""Side of a fitted view, as a multiple of the longer side of the building."""

_SMALLEST_VIEW_M = 16.0
_SAME_VIEW = 1.35
"""Largest ratio of two sides of views, up to which a view is not fitted again."""

_MAX_RUNS = 4
"""Maximum number of views for one click."""

_ON_CLICK = 0.8
"""Value of a map of clicks from which a pixel counts as clicked: within 2 px."""

_BRIDGE_PX = 4
"""Widest bridge between two regions, in pixels of the view, that does not join them."""

_SIMPLIFY_VIEW_PX = 2.0
"""Tolerance of the straightened outline in pixels of the view, where these are larger than those
of the image: on 58 buildings of Kampala at 0.075 m, half of the outlines then have at most 11
corners instead of 35, and the mean IoU with the labels is the same."""

_ONE_SIDED = 2.0
"""Growth of a view at whose edge the building is cut."""


@dataclass(frozen=True)
class ClickAnswer:
    """The building that was clicked.

    Args:
        window: Part of the image that contains it.
        mask: (y, x) pixels of the building in that window.
        outlines: (n,) straightened polygons in pixels of the image, x right and y down; empty if
            nothing was found.
        score: Mean probability of the building's pixels; 0 if nothing was found.
    """

    window: Window
    mask: BoolArray
    outlines: NDArray[np.object_]
    score: float


@dataclass(frozen=True)
class ClickModel:
    """A loaded click network."""

    bundle: ModelBundle
    engine: Engine

    def answer(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (y, x) probability for one (band, y, x) input: the mean of the outputs for it
        and for its mirror image.
        """
        both = np.stack([inputs, inputs[..., ::-1]])
        answers = self.engine.run(both)[:, 0]
        mean: NDArray[np.float32] = (answers[0] + answers[1, :, ::-1]) / 2
        return mean


def load_clicks(
    path: str | Path | None = None, *, engine: str | None = None, precision: str | None = None
) -> ClickModel:
    """Load a click network.

    Args:
        path: Bundle of a run with `[clicks]`; default the bundled one.
        engine, precision: See `rooftrace.predict.predictor.load`.

    Raises:
        BundleError: The file is damaged, or is not a click network.
        ConfigError, MissingExtraError: See `load_engine`.
    """
    bundle = click_bundle() if path is None else read_bundle(Path(path))
    if not bundle.spec.takes_clicks:
        raise BundleError(
            f"{bundle.source} is a model of {', '.join(bundle.spec.bands)}; expected one that "
            f"takes {', '.join(CLICK_BANDS)} after the bands of the image.",
            remedy="Give the bundle of a training with [clicks].",
        )
    return ClickModel(bundle, load_engine(bundle, engine=engine, precision=precision))


@dataclass(frozen=True)
class _ImageSquare:
    """A square part of the image, in its pixels, which may extend beyond it."""

    row: float
    col: float
    side: float

    @classmethod
    def around(cls, row: float, col: float, side: float) -> _ImageSquare:
        return cls(row - side / 2, col - side / 2, side)

    @property
    def scale(self) -> float:
        """Image pixels per pixel of the view."""
        return self.side / VIEW_PX

    def inside(self, shape_yx: tuple[int, int]) -> BoolArray:
        """Return which pixels of the view have their centre in an image of this shape."""
        middle = (np.arange(VIEW_PX) + 0.5) * self.scale
        rows, cols = (
            (start + middle >= 0) & (start + middle < length)
            for start, length in zip((self.row, self.col), shape_yx)
        )
        return np.asarray(rows[:, None] & cols)

    @property
    def to_image(self) -> NDArray[np.float64]:
        """(2, 3) map from pixel centres (x, y) of the view to those of the image."""
        shift = (self.scale - 1) / 2
        return np.array([[self.scale, 0, self.col + shift], [0, self.scale, self.row + shift]])

    def from_view(self, other: _ImageSquare) -> NDArray[np.float64]:
        """Return the (2, 3) map from pixel centres of another view to those of this one."""
        ratio, shift = other.scale / self.scale, (self.scale - 1) / 2
        offset = other.to_image[:, 2] - (self.col + shift, self.row + shift)
        return np.column_stack([np.eye(2) * ratio, offset / self.scale])

    def place(self, click: Click) -> Click:
        """Return a click in pixels of the view."""
        row, col = (click.row - self.row) / self.scale, (click.col - self.col) / self.scale
        return replace(click, row=row, col=col)


class ClickSegmenter:
    """The clicks on one building of an image, and the answers to them.

    Only the parts of the image around the clicks are read.

    Args:
        image: Path, array (band, y, x) of pixel values, or `RasterSource`.
        model: Network of `load_clicks`.
        gsd_m: Metres per pixel of the image, where its georeference is missing or wrong; without
            both, the image is assumed to have the network's resolution.
        bands, stretch: Choice of bands and values, see `io.pixels.prepare`.

    Raises:
        DataError, BandMismatch: The image cannot be read, or does not have the network's bands.
    """

    def __init__(
        self, image: Input, model: ClickModel, *, gsd_m: float | None = None,
        bands: str | None = None, stretch: str = "auto",
    ) -> None:  # fmt: skip
        spec = model.bundle.spec
        count = len(spec.bands) - len(CLICK_BANDS)
        usual = list(zip(spec.mean, spec.std))[:count]
        self._image = prepare(
            as_source(image, count), spec.bands[:count], np.dtype(np.uint8), usual,
            bands=bands, stretch=stretch,
        )  # fmt: skip
        self._model = model
        self._gsd_m = gsd_m or self._image.grid.gsd_m or spec.gsd_m or 1.0
        self._threshold = spec.threshold
        self._first_side = VIEW_PX * (spec.gsd_m or self._gsd_m) / self._gsd_m
        self._clicks: list[Click] = []
        self._view: _ImageSquare | None = None
        self._probability = np.zeros((VIEW_PX, VIEW_PX), np.float32)

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks so far."""
        return tuple(self._clicks)

    def click(self, row: float, col: float, *, positive: bool = True) -> ClickAnswer:
        """Add a click, and return the answer to all clicks so far.

        Args:
            row, col: Position in pixels of the image, counted from its upper left corner.
            positive: True for a place in the building, False for a place outside.

        Raises:
            DataError: The click lies outside of the image; or the first click is negative.
            PredictError: The network failed.
        """
        height, width = self._image.grid.shape
        if not (0 <= row <= height and 0 <= col <= width):
            raise DataError(
                f"The click at row {row:g}, column {col:g} lies outside of {self._image.name}, "
                f"which has {height} rows and {width} columns.",
                remedy="Click on the image.",
            )
        if not positive and self._view is None:
            raise DataError(
                "The first click says what is not in the building; expected a click on it.",
                remedy="Click on the building first, and then on what is too much.",
            )
        earlier, seen = self._probability, self._view
        self._clicks.append(Click(row, col, positive))
        try:
            self._look(row, col, earlier, seen)
        except BaseException:
            # A click that failed is not among the clicks so far.
            self._clicks.pop()
            self._probability, self._view = earlier, seen
            raise
        return self.answer()

    def _look(
        self, row: float, col: float, earlier: NDArray[np.float32], seen: _ImageSquare | None
    ) -> None:
        """Run the network on the last click, in views that are fitted to its answer."""
        view = seen or _ImageSquare.around(row, col, self._first_side)
        if not self._inside(view, Click(row, col)):
            view = self._fitted(view)
        for number in range(_MAX_RUNS):
            self._probability = self._run(view, earlier, seen)
            self._view = view
            fitted = self._fitted(view)
            # A second fit rarely changes the answer, but a building may still be cut.
            is_cut = fitted.side > view.side * _SAME_VIEW
            if self._alike(view, fitted) or (number and not is_cut):
                break
            view = fitted

    def _inside(self, view: _ImageSquare, click: Click) -> bool:
        placed = view.place(click)
        return 0 <= placed.row < VIEW_PX and 0 <= placed.col < VIEW_PX

    def _run(self, view: _ImageSquare, earlier: NDArray[np.float32], seen: _ImageSquare | None) -> (
        NDArray[np.float32]
    ):  # fmt: skip
        """Return the (y, x) probability in a view; `seen` is that of the `earlier` answer."""
        whole = Window.whole(self._image.grid.shape)
        window = window_under(view.to_image, VIEW_PX).intersection(whole)
        assert window is not None  # a view contains a click, which lies in the image
        to_window = view.to_image
        to_window[:, 2] -= window.col, window.row
        raster = self._image.read(window)
        sample = warp(
            Sample(raster.data, np.zeros(raster.valid.shape, np.uint8), raster.valid),
            to_window,
            VIEW_PX,
        )
        before = np.zeros((VIEW_PX, VIEW_PX), np.float32)
        if seen is not None:
            flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
            before[:] = cv2.warpAffine(earlier, seen.from_view(view), before.shape, flags=flags)
        drawn = draw_clicks([view.place(click) for click in self._clicks], before.shape)
        return self._model.answer(
            np.concatenate([sample.image.astype(np.float32), before[None], drawn])
        )

    def _building(self, view: _ImageSquare) -> BoolArray:
        """Return the pixels whose connected region in the image has a positive click."""
        mask = self._probability >= self._threshold
        # Beyond the image the network guesses, which would join roofs at its edge.
        mask &= view.inside(self._image.grid.shape)
        places = [view.place(click) for click in self._clicks if click.positive]
        near = draw_clicks(places, mask.shape)[0] > _ON_CLICK
        # Roofs that touch are often joined by a bridge of a few pixels, which an opening removes.
        bridge = np.ones((_BRIDGE_PX + 1, _BRIDGE_PX + 1), np.uint8)
        opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, bridge).astype(bool)
        opened |= near & mask
        _, numbers = cv2.connectedComponents(opened.astype(np.uint8), connectivity=4)
        chosen = np.isin(numbers, np.unique(numbers[near & opened]))
        # The pixels that the opening took from the rim come back, but not those of other regions.
        grown = cv2.dilate(chosen.astype(np.uint8), bridge).astype(bool)
        building: BoolArray = chosen | (grown & mask & ~opened)
        return building

    def _fitted(self, view: _ImageSquare) -> _ImageSquare:
        """Return the view that shows the building and all clicks with some surroundings."""
        rows, cols = np.nonzero(self._building(view) if view == self._view else [[False]])
        places = [view.place(click) for click in self._clicks]
        low = np.array([*([rows.min(), cols.min()] if len(rows) else [np.inf] * 2)])
        high = np.array([*([rows.max() + 1, cols.max() + 1] if len(rows) else [-np.inf] * 2)])
        cut = len(rows) > 0 and (low.min() <= 0 or high.max() >= VIEW_PX)
        for place in places:
            low = np.minimum(low, (place.row, place.col))
            high = np.maximum(high, (place.row, place.col))
        side = float((high - low).max()) * _MARGIN
        if not len(rows):
            side = max(side, VIEW_PX)
        if cut:
            side = max(side, VIEW_PX * _ONE_SIDED)
        middle_row, middle_col = (low + high) / 2 * view.scale
        wanted = max(side * view.scale, _SMALLEST_VIEW_M / self._gsd_m)
        wanted = min(wanted, max(2.0 * max(self._image.grid.shape), self._first_side))
        return _ImageSquare.around(view.row + middle_row, view.col + middle_col, wanted)

    def _alike(self, view: _ImageSquare, fitted: _ImageSquare) -> bool:
        ratio = max(view.side, fitted.side) / min(view.side, fitted.side)
        shift = max(
            abs(view.row + view.side / 2 - fitted.row - fitted.side / 2),
            abs(view.col + view.side / 2 - fitted.col - fitted.side / 2),
        )
        return ratio <= _SAME_VIEW and shift <= view.side / 8

    def answer(self) -> ClickAnswer:
        """Return the answer to all clicks so far.

        Raises:
            DataError: There was no click.
        """
        if self._view is None:
            raise DataError(
                f"There was no click on {self._image.name} yet; expected one on a building.",
                remedy="Click on a building first.",
            )
        view, whole = self._view, Window.whole(self._image.grid.shape)
        building = self._building(view)
        window = window_under(view.to_image, VIEW_PX).intersection(whole)
        assert window is not None
        to_view = cv2.invertAffineTransform(view.to_image)
        # Pixel centres of the window, as the image counts them.
        to_view[:, 2] += to_view[:, :2] @ np.array([window.col, window.row])
        flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        size = (window.width, window.height)
        # Regions without a click are cleared beyond a pixel, so that no interpolated edge moves.
        near = cv2.dilate(building.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        kept = np.where(near, self._probability, 0)
        probability = cv2.warpAffine(kept, to_view, size, flags=flags)
        mask: BoolArray = probability >= self._threshold
        traced = trace(mask, window)
        large = traced.of(traced.area_px >= VectorOptions().min_area_px)
        filled = np.array([shapely.Polygon(one.exterior) for one in large.polygons], np.object_)
        # The edges of an enlarged answer are rounded, but the building is not.
        tolerance_px = VectorOptions().simplify_px * max(1.0, _SIMPLIFY_VIEW_PX * view.scale)
        outlines = regularize(filled, tolerance_px).polygons
        score = float(probability[mask].mean()) if mask.any() else 0.0
        return ClickAnswer(window, mask, outlines, score)
