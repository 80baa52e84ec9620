"""Tools on the map canvas: draw an area, and review buildings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from qgis.core import (
    Qgis,
    QgsCategorizedSymbolRenderer,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsFeatureRequest,
    QgsFillSymbol,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRectangle,
    QgsRendererCategory,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.gui import QgsMapCanvas, QgsMapTool, QgsRubberBand
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QColor
from qgis.PyQt.QtWidgets import QApplication

from .command import RooftraceProblem
from .review import Review

_STATUSES = {
    "open": ("not reviewed", "#f0e442"), "accepted": ("accepted", "#009e73"),
    "rejected": ("rejected", "#d55e00"), "changed": ("corrected", "#56b4e9"),
    "added": ("added", "#cc79a7"),
}  # fmt: skip
"""Labels and colours of the review on the web."""

_LONLAT = QgsCoordinateReferenceSystem("EPSG:4326")
_POLYGON = QgsWkbTypes.GeometryType.PolygonGeometry


class _Drawing:
    """A polygon that is drawn by clicks, corner by corner."""

    def __init__(self, canvas: QgsMapCanvas) -> None:
        self.corners: list[QgsPointXY] = []
        self._band = _band(canvas, "#1f78b4", 40)

    def add(self, point: QgsPointXY) -> None:
        self.corners.append(point)
        self.follow(point)

    def follow(self, point: QgsPointXY) -> None:
        """Show the polygon with its next corner at a point."""
        if self.corners:
            ring = [*self.corners, point]
            self._band.setToGeometry(QgsGeometry.fromPolygonXY([ring]), None)

    def finish(self) -> QgsGeometry | None:
        """Return the polygon and forget it; None if it has less than three corners."""
        corners, self.corners = self.corners, []
        self._band.reset(_POLYGON)
        return QgsGeometry.fromPolygonXY([corners]) if len(corners) > 2 else None


def _band(canvas: QgsMapCanvas, colour: str, opacity: int) -> QgsRubberBand:
    band = QgsRubberBand(canvas, _POLYGON)
    line, fill = QColor(colour), QColor(colour)
    fill.setAlpha(opacity)
    band.setStrokeColor(line)
    band.setFillColor(fill)
    band.setWidth(2)
    return band


class AreaTool(QgsMapTool):
    """Draws an area: clicks are its corners; a click with the right button, or Enter, ends it.

    Args:
        canvas: Map.
        done: Function that takes the polygon in the CRS of the map; None if there is none.
    """

    def __init__(self, canvas: QgsMapCanvas, done: Callable[[QgsGeometry | None], None]) -> None:
        super().__init__(canvas)
        self._canvas, self._done = canvas, done
        self._drawing = _Drawing(canvas)
        self.setCursor(Qt.CursorShape.CrossCursor)

    def canvasMoveEvent(self, event: Any) -> None:
        self._drawing.follow(event.mapPoint())

    def canvasReleaseEvent(self, event: Any) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._drawing.add(event.mapPoint())
        else:
            self._end(self._drawing.finish())

    def keyPressEvent(self, event: Any) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._end(self._drawing.finish())
        elif event.key() == Qt.Key.Key_Escape:
            self._drawing.finish()
            self._end(None)

    def _end(self, polygon: QgsGeometry | None) -> None:
        self._done(polygon)
        self._canvas.unsetMapTool(self)


class ReviewLayer:
    """A layer in memory of the predicted buildings and the decisions on them.

    Args:
        review: Review of the image.
        title: Name of the layer.
    """

    def __init__(self, review: Review, title: str) -> None:
        self._review = review
        predicted = QgsVectorLayer(str(review.polygons), title, "ogr")
        if not predicted.isValid():
            raise RooftraceProblem(f"{review.polygons} cannot be opened.")
        self.layer = QgsVectorLayer(
            "MultiPolygon?field=id:integer&field=score:double&field=review:string(10)",
            title, "memory",
        )  # fmt: skip
        self.layer.setCrs(predicted.crs())
        self._from_lonlat = QgsCoordinateTransform(_LONLAT, self.layer.crs(), QgsProject.instance())
        self._ids: dict[int, int] = {}
        self._predicted: dict[int, QgsGeometry] = {}
        names = predicted.fields().names()
        features = []
        rows = list(predicted.getFeatures())
        # As the server: null is 0, and where edits in a GIS have repeated numbers, rows count.
        ids = [one["id"] if isinstance(one["id"], int) else 0 for one in rows if "id" in names]
        if len({*ids}) < len(rows):
            ids = [*range(1, len(rows) + 1)]
        for number, feature in zip(ids, rows):
            score = feature["score"] if "score" in names else None
            features.append(self._feature(number, score, "open", feature.geometry()))
        self._add(features)
        self.show(*review.refresh())
        self.layer.setRenderer(_review_renderer())
        project = QgsProject.instance()
        root = project.layerTreeRoot()
        for node in root.findLayers():
            # The same buildings without decisions would hide these.
            layer = node.layer()
            if layer is not None and Path(layer.source().split("|")[0]) == Path(review.polygons):
                node.setItemVisibilityChecked(False)
        project.addMapLayer(self.layer, False)
        root.insertLayer(0, self.layer)

    def _feature(self, number: int, score: Any, status: str, outline: QgsGeometry) -> QgsFeature:
        feature = QgsFeature(self.layer.fields())
        feature.setAttributes([number, score, status])
        outline.convertToMultiType()
        feature.setGeometry(outline)
        return feature

    def _add(self, features: list[QgsFeature]) -> None:
        _, added = self.layer.dataProvider().addFeatures(features)
        self._ids.update((int(one["id"]), one.id()) for one in added)

    def find(self, number: int) -> QgsFeature | None:
        """Return the feature of a building."""
        return self.layer.getFeature(self._ids[number]) if number in self._ids else None

    def at(self, point: QgsPointXY) -> int | None:
        """Return the number of the smallest building at a point in the CRS of the layer."""
        place = QgsGeometry.fromPointXY(point)
        request = QgsFeatureRequest().setFilterRect(QgsRectangle(point, point))
        found = [one for one in self.layer.getFeatures(request) if one.geometry().contains(place)]
        smallest = min(found, key=lambda one: one.geometry().area(), default=None)
        return None if smallest is None else int(smallest["id"])

    def show(self, buildings: Sequence[dict[str, Any]], removed: Sequence[int] = ()) -> None:
        """Take over buildings as the server describes them, and forget removed ones."""
        provider = self.layer.dataProvider()
        at = self.layer.fields().indexOf("review")
        for one in buildings:
            number, known = one["id"], self.find(one["id"])
            outline = None if one["outline"] is None else self._outline(one["outline"])
            if known is None:
                assert outline is not None
                self._add([self._feature(number, one["score"], one["status"], outline)])
                continue
            provider.changeAttributeValues({known.id(): {at: one["status"]}})
            if outline is not None:
                self._predicted.setdefault(number, known.geometry())
                outline.convertToMultiType()
            else:
                outline = self._predicted.pop(number, None)
            if outline is not None:
                provider.changeGeometryValues({known.id(): outline})
        gone = [self._ids.pop(number) for number in removed if number in self._ids]
        if gone:
            provider.deleteFeatures(gone)
        self.layer.triggerRepaint()

    def _outline(self, described: dict[str, Any]) -> QgsGeometry:
        parts = described["coordinates"]
        parts = [parts] if described["type"] == "Polygon" else parts
        outline = QgsGeometry.fromMultiPolygonXY(
            [[[QgsPointXY(*point) for point in ring] for ring in part] for part in parts]
        )
        outline.transform(self._from_lonlat)
        return outline


def _review_renderer() -> QgsCategorizedSymbolRenderer:
    categories = []
    for status, (label, colour) in _STATUSES.items():
        fill = QColor(colour)
        fill.setAlpha(60 if status == "open" else 110)
        symbol = QgsFillSymbol.createSimple({"outline_color": colour, "outline_width": "0.5"})
        symbol.setColor(fill)
        symbol.symbolLayer(0).setStrokeColor(QColor(colour))
        categories.append(QgsRendererCategory(status, symbol, label))
    return QgsCategorizedSymbolRenderer("review", categories)


class ReviewTool(QgsMapTool):
    """Decides on buildings by clicks and keys, which are those of the review on the web.

    Args:
        canvas: Map.
        review: Review of the image.
        shown: Layer of the buildings.
        on_change: Function that takes a sentence for the user, or "", after each step.
    """

    KEYS = (
        ("A, R, O", "accept, reject, reopen"), ("N, P", "next, previous doubtful building"),
        ("C", "click a roof to get its outline; Shift takes away"),
        ("D, B", "redraw the building, draw a new one"), ("Enter, Esc", "save or drop an outline"),
        ("Z", "undo"),
    )  # fmt: skip

    def __init__(
        self,
        canvas: QgsMapCanvas,
        review: Review,
        shown: ReviewLayer,
        on_change: Callable[[str], None],
    ) -> None:
        super().__init__(canvas)
        self._canvas, self._review, self._shown, self._on_change = canvas, review, shown, on_change
        self.chosen: int | None = None
        self.mode = "decide"
        self._clicks: list[tuple[tuple[float, float], bool]] = []
        self._outline: list[Any] | None = None
        self._replaces: int | None = None
        self._chosen_band = _band(canvas, "#000000", 0)
        self._outline_band = _band(canvas, "#1f78b4", 70)
        self._drawing = _Drawing(canvas)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self._actions: dict[Any, Callable[[], None]] = {
            Qt.Key.Key_A: lambda: self.decide("accept"),
            Qt.Key.Key_R: lambda: self.decide("reject"),
            Qt.Key.Key_O: lambda: self.decide("reopen"),
            Qt.Key.Key_N: lambda: self.go(backwards=False),
            Qt.Key.Key_P: lambda: self.go(backwards=True),
            Qt.Key.Key_C: lambda: self.begin("click"),
            Qt.Key.Key_D: lambda: self.begin("redraw"),
            Qt.Key.Key_B: lambda: self.begin("draw"),
            Qt.Key.Key_Z: self.undo,
            Qt.Key.Key_Return: self.save,
            Qt.Key.Key_Enter: self.save,
            Qt.Key.Key_Escape: lambda: self.begin("decide"),
            Qt.Key.Key_Delete: self._take_back,
            Qt.Key.Key_Backspace: self._take_back,
        }

    def deactivate(self) -> None:
        self.begin("decide")
        self._chosen_band.reset(_POLYGON)
        super().deactivate()

    def keyPressEvent(self, event: Any) -> None:
        event.setAccepted(self.press(event.key()))

    def press(self, key: Any) -> bool:
        """Do what a key does; return whether it does anything."""
        action = self._actions.get(key)
        if action is not None:
            action()
        return action is not None

    def canvasMoveEvent(self, event: Any) -> None:
        if self.mode in ("draw", "redraw"):
            self._drawing.follow(event.mapPoint())

    def canvasReleaseEvent(self, event: Any) -> None:
        point = event.mapPoint()
        if event.button() != Qt.MouseButton.LeftButton:
            self.save()
        elif self.mode in ("draw", "redraw"):
            self._drawing.add(point)
        elif self.mode == "click":
            takes_away = Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.AltModifier
            self._click(point, inside=not event.modifiers() & takes_away)
        else:
            self.choose(self._shown.at(self._to(self._shown.layer.crs()).transform(point)))
            self._on_change("" if self.chosen is not None else "No building is chosen.")

    def _to(self, crs: QgsCoordinateReferenceSystem) -> QgsCoordinateTransform:
        shown = self._canvas.mapSettings().destinationCrs()
        return QgsCoordinateTransform(shown, crs, QgsProject.instance())

    def choose(self, number: int | None, *, moves: bool = False) -> None:
        """Choose a building; `moves` brings it to the middle of the map."""
        feature = None if number is None else self._shown.find(number)
        self.chosen = None if feature is None else number
        self._chosen_band.reset(_POLYGON)
        if feature is not None:
            self._chosen_band.setToGeometry(feature.geometry(), self._shown.layer)
            if moves:
                to_layer, back = self._to(self._shown.layer.crs()), Qgis.TransformDirection.Reverse
                box = to_layer.transformBoundingBox(feature.geometry().boundingBox(), back)
                self._canvas.zoomToFeatureExtent(box.buffered(2 * max(box.width(), box.height())))

    def go(self, *, backwards: bool) -> None:
        """Go to the next open building in the order of doubt."""

        def find() -> str:
            self.choose(self._review.following(self.chosen, backwards=backwards), moves=True)
            return "" if self.chosen is not None else "All buildings are reviewed."

        self._ask(find)

    def decide(self, action: str) -> None:
        """Accept, reject or reopen the chosen building, and go to the next one."""
        number = self.chosen
        if number is None:
            self._on_change("Choose a building first: click on it, or press N.")
            return

        def change() -> str:
            self._shown.show(self._review.change(action, [number]))
            if action != "reopen":
                self.choose(self._review.following(number), moves=True)
            return "" if self.chosen is not None else "All buildings are reviewed."

        self._ask(change)

    def undo(self) -> None:
        """Undo the last change of this reviewer."""

        def change() -> str:
            self._review.undo()
            return "The last change is undone."

        self._ask(change)

    def begin(self, mode: str) -> None:
        """Begin to decide, click, draw or redraw; what was not saved is dropped."""
        if mode == "redraw" and self.chosen is None:
            self._on_change("Choose the building that you want to redraw first.")
            return
        self.mode, self._clicks, self._outline = mode, [], None
        self._drawing.finish()
        self._outline_band.reset(_POLYGON)
        hints = {
            "click": "Click in the middle of a roof. Enter saves the outline.",
            "draw": "Click the corners of the new building. Enter saves it.",
            "redraw": "Click the corners of the building anew. Enter saves it.",
        }
        self._on_change(hints.get(mode, ""))

    def save(self) -> None:
        """Save the outline that was clicked or drawn."""
        number = self.chosen if self.mode == "redraw" else None
        if self.mode == "click":
            outline, number = self._outline, self._replaces
        else:
            polygon = self._drawing.finish()
            if polygon is not None:
                polygon.transform(self._to(_LONLAT))
            outline = None if polygon is None else [
                (point.x(), point.y()) for point in polygon.asPolygon()[0]
            ]  # fmt: skip
        if not outline:
            if self.mode != "decide":
                self._on_change("There is no outline yet.")
            return

        def change() -> str:
            if number is None:
                buildings = self._review.change("add", outline=outline)
            else:
                buildings = self._review.change("redraw", [number], outline)
            self._shown.show(buildings)
            mode = self.mode
            self.begin(mode if mode == "click" else "decide")
            self.choose(buildings[0]["id"])
            return f"Building {buildings[0]['id']} is saved as {buildings[0]['status']}."

        self._ask(change)

    def _click(self, point: QgsPointXY, *, inside: bool) -> None:
        lonlat = self._to(_LONLAT).transform(point)
        if not self._clicks:
            at = self._shown.at(self._to(self._shown.layer.crs()).transform(point))
            self._replaces = at if at == self.chosen else None
        self._clicks.append(((lonlat.x(), lonlat.y()), inside or not self._clicks))
        self._show_clicks()

    def _take_back(self) -> None:
        self._clicks = self._clicks[:-1]
        self._show_clicks()

    def _show_clicks(self) -> None:
        self._outline = None
        self._outline_band.reset(_POLYGON)
        if not self._clicks:
            return

        def outline() -> str:
            self._outline = self._review.click(self._clicks)
            if self._outline is None:
                return "No roof was found there. Click elsewhere, or draw it (B)."
            ring = QgsGeometry.fromPolygonXY([[QgsPointXY(*one) for one in self._outline]])
            ring.transform(self._to(_LONLAT), Qgis.TransformDirection.Reverse)
            self._outline_band.setToGeometry(ring, None)
            does = "add the building" if self._replaces is None else "replace the outline"
            return f"Enter to {does}; click again to add to it, with Shift to take away."

        self._ask(outline)

    def _ask(self, work: Callable[[], str]) -> None:
        """Do one step with the server of this computer, which answers in a fraction of a second."""
        QApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
        try:
            text = work()
            self._shown.show(*self._review.refresh())
            self.choose(self.chosen)
        except RooftraceProblem as problem:
            text = str(problem)
        finally:
            QApplication.restoreOverrideCursor()
        self._on_change(text)
