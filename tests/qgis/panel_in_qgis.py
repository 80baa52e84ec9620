"""The panel of the plugin in a QGIS without a display: run it with the Python of any QGIS.

    QT_QPA_PLATFORM=offscreen python3 tests/qgis/panel_in_qgis.py

It needs no rooftrace: the server of the review is a false one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLUGINS = ("/usr/share/qgis/python/plugins", "/usr/local/share/qgis/python/plugins")
sys.path[:0] = [*PLUGINS, str(ROOT / "qgis")]
scratch = tempfile.mkdtemp()
os.environ.update(QGIS_CUSTOM_CONFIG_PATH=scratch, HOME=scratch, PATH="/usr/bin:/bin")

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProcessingContext,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsSettings,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt.QtCore import QPoint, Qt
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QMainWindow, QMenu, QProgressDialog

application = QgsApplication([], True)
application.initQgis()
import processing
from processing.core.Processing import Processing

Processing.initialize()
from rooftrace_plugin import classFactory
from rooftrace_plugin.canvas import ReviewLayer, ReviewTool
from rooftrace_plugin.dock import _free_folder
from rooftrace_plugin.inputs import folder_name, service_of
from rooftrace_plugin.network import network_variables
from rooftrace_plugin.run import LoadStyle


class Iface:
    """The part of the interface of QGIS that the plugin uses."""

    def __init__(self) -> None:
        self.window, self.canvas, self.menu = QMainWindow(), QgsMapCanvas(), QMenu()
        self.window.setCentralWidget(self.canvas)
        self.window.resize(900, 700)
        self.mainWindow = lambda: self.window
        self.mapCanvas = lambda: self.canvas
        self.pluginMenu = lambda: self.menu
        self.addDockWidget = self.window.addDockWidget
        self.removeDockWidget = self.window.removeDockWidget
        self.addToolBarIcon = self.removeToolBarIcon = lambda _: None


class FalseReview:
    """A review of two buildings, which keeps what it is told."""

    image, counts = "town", {"reviewed": 0, "total": 2, "accepted": 0, "rejected": 0, "changed": 0,
                             "added": 0}  # fmt: skip

    def __init__(self, polygons: str) -> None:
        self.polygons, self.calls = polygons, []
        self.changed: list[dict[str, Any]] = []

    def refresh(self) -> tuple[list[dict[str, Any]], list[int]]:
        return self.changed, []

    def change(self, action: str, buildings: Any = (), outline: Any = None) -> list[dict[str, Any]]:
        self.calls.append([action, list(buildings), outline and len(outline)])
        status = {"accept": "accepted", "reject": "rejected", "redraw": "changed", "add": "added"}
        shape = outline and {"type": "Polygon", "coordinates": [outline]}
        self.changed = [{"id": one, "status": status[action], "score": 0.5, "outline": shape}
                        for one in buildings or [9]]  # fmt: skip
        return self.changed

    def click(self, clicks: Any) -> Any:
        (lon, lat), _ = clicks[0]
        self.calls.append(["click", [inside for _, inside in clicks], None])
        return [(lon, lat), (lon + 1e-5, lat), (lon + 1e-5, lat + 1e-5), (lon, lat)]

    def following(self, start: Any, *, backwards: bool = False) -> int | None:
        return {None: 1, 1: 2}.get(start)

    def undo(self) -> None:
        self.calls.append(["undo", [], None])
        self.changed = [{"id": 2, "status": "open", "score": 0.5, "outline": None}]


iface = Iface()
plugin = classFactory(iface)
plugin.initGui()
dock, canvas = plugin.dock, iface.canvas
iface.window.show()
dock.show()
canvas.setDestinationCrs(QgsCoordinateReferenceSystem("EPSG:32633"))
canvas.setExtent(QgsRectangle(500000, 5000000, 500200, 5000200))
application.processEvents()


def click(x: float, y: float, button: Any = Qt.MouseButton.LeftButton, keys: Any = None) -> None:
    at = canvas.getCoordinateTransform().transform(QgsPointXY(x, y))
    keys = Qt.KeyboardModifier.NoModifier if keys is None else keys
    QTest.mouseClick(canvas.viewport(), button, keys, QPoint(round(at.x()), round(at.y())))


provider = QgsApplication.processingRegistry().providerById("rooftrace")
assert sorted(one.name() for one in provider.algorithms()) == [
    "compare", "density", "finetune", "heights", "predict", "predictonserver",
]  # fmt: skip
assert "not installed" in dock._state.text()
dock.setup.report()
while dock.setup.work.is_busy:
    application.processEvents()
report = json.loads(QgsApplication.clipboard().text())
assert (report["rooftrace"], report["QGIS"]) == ("not installed", Qgis.QGIS_VERSION)

# The proxy of QGIS.
settings = QgsSettings()
for name, value in (
    ("proxyEnabled", True), ("proxyType", "HttpProxy"), ("proxyHost", "proxy.invalid"),
    ("proxyPort", "8080"), ("proxyUser", "me"), ("proxyPassword", "p@ss"),
    ("noProxyUrls", ["https://inner.invalid/maps"]),
):  # fmt: skip
    settings.setValue(f"proxy/{name}", value)
network = network_variables()
assert network["HTTPS_PROXY"] == "http://me:p%40ss@proxy.invalid:8080"
assert network["NO_PROXY"] == "localhost,127.0.0.1,inner.invalid"
settings.setValue("proxy/proxyEnabled", False)

# An installation that fails leaves the panel usable.
dock.setup._offline.setChecked(True)
dock.setup._wheels.setFilePath(scratch)
dock.setup.install()
while dock.setup.work.is_busy:
    application.processEvents()
assert "no wheel of rooftrace" in dock.setup.work._text.text()
assert dock.setup._install.isEnabled()

# An area that is drawn.
dock.area.setCurrentIndex(2)
for corner in ((500020, 5000020), (500120, 5000020), (500120, 5000120)):
    click(*corner)
click(500060, 5000100, Qt.MouseButton.RightButton)
assert abs(next(dock._area.getFeatures()).geometry().area() - 5000) < 250
dock.find_buildings()
assert dock.work._text.text().startswith("Add an image")

titles = {"Town: 2024?": "Town_ 2024", "/a/../b": "a_.._b", "Straße": "Straße", "..": "image"}
for title, name in titles.items():
    assert folder_name(title) == name, title

# A canceled run resumes in its folder, and no other run writes there.
for name, left in (("a", "a/.rooftrace"), ("b", "b/notes")):
    (Path(scratch) / left).mkdir(parents=True)
    assert _free_folder(Path(scratch) / name).name == {"a": "a", "b": "b-2"}[name]
(Path(scratch) / "a/run.json").touch()
assert _free_folder(Path(scratch) / "a").name == "a-2"

# A remedy of GDAL has its place in QGIS.
said = provider.algorithm("heights")._in_labels("Set it: gdal_edit.py -a_nodata 0 FILE.")
assert said.endswith("(In QGIS: Layer Properties > Transparency > Additional no data value.)")

# A parameter that cannot be used.
web = QgsRasterLayer("type=xyz&url=https://e.invalid/%7Bz%7D/%7Bx%7D/%7By%7D.png", "web", "wms")
QgsProject.instance().addMapLayer(web)
dock.area.setCurrentIndex(1)
dock.find_buildings()
while dock.work.is_busy:
    application.processEvents()
assert dock.work._text.text().startswith("rooftrace is not installed")

# The dialog of the toolbox has what is chosen in the panel.
asked: list[dict[str, Any]] = []
processing.createAlgorithmDialog = lambda _, parameters: (
    asked.append(parameters) or QProgressDialog()
)
QProgressDialog.algorithmFinished = QProgressDialog.canceled
dock.show_options()
assert asked[0]["INPUT"] == web
dock._take_results(True, {"OUTPUT": scratch})
assert dock.results.filePath() == scratch
dock.results.setFilePath("")

# QGIS deletes the style of a result with its context; the next result has one of its own.
for _ in range(2):
    context = QgsProcessingContext()
    details = QgsProcessingContext.LayerDetails("density", QgsProject.instance())
    details.setPostProcessor(LoadStyle.named("density"))
    context.addLayerToLoadOnCompletion("density.tif", details)
    del details, context

# The review.
buildings = QgsVectorLayer(
    "Polygon?crs=EPSG:32633&field=id:integer&field=score:double", "buildings", "memory"
)
for x in (500030, 500130):  # the parts of a building that was divided: the server numbers rows
    feature = QgsFeature(buildings.fields())
    feature.setAttributes([7, 0.5])
    box = QgsRectangle(x, 5000050, x + 20, 5000070)
    feature.setGeometry(QgsGeometry.fromRect(box))
    buildings.dataProvider().addFeatures([feature])
options = QgsVectorFileWriter.SaveVectorOptions()
path = str(Path(scratch) / "town_buildings.gpkg")
QgsVectorFileWriter.writeAsVectorFormatV3(
    buildings, path, QgsProject.instance().transformContext(), options
)
review = FalseReview(path)
layer = ReviewLayer(review, "review")
texts: list[str] = []
tool = ReviewTool(canvas, review, layer, texts.append)
canvas.setMapTool(tool)
click(500040, 5000060)
assert tool.chosen == 1
for key in (Qt.Key.Key_A, Qt.Key.Key_C):
    QTest.keyClick(canvas, key)
canvas.setExtent(QgsRectangle(500000, 5000000, 500200, 5000200))
click(500080, 5000150)
click(500085, 5000150, keys=Qt.KeyboardModifier.ShiftModifier)
for key in (Qt.Key.Key_Delete, Qt.Key.Key_Return):
    QTest.keyClick(canvas, key)
tool.choose(2)
QTest.keyClick(canvas, Qt.Key.Key_D)
for corner in ((500130, 5000050), (500160, 5000050), (500160, 5000080)):
    click(*corner)
QTest.keyClick(canvas, Qt.Key.Key_Return)
assert round(layer.find(2).geometry().area()) != 400
QTest.keyClick(canvas, Qt.Key.Key_Z)
assert round(layer.find(2).geometry().area()) == 400
statuses = {one["id"]: one["review"] for one in layer.layer.getFeatures()}
assert statuses == {1: "accepted", 2: "open", 9: "added"}
assert review.calls == [
    ["accept", [1], None], ["click", [True], None], ["click", [True, False], None],
    ["click", [True], None], ["add", [], 4], ["redraw", [2], 4], ["undo", [], None],
]  # fmt: skip
assert texts[-1] == "The last change is undone."

# The labels of a fine-tuning are written when the review ends.
review.counts = {**review.counts, "reviewed": 1, "accepted": 1}
review.export, review.close = lambda: texts.append("exported"), lambda: texts.append("closed")
dock._review = review
dock.end_review()
assert texts[-2:] == ["exported", "closed"]
dock.fine_tune()
assert dock.work._text.text().startswith("Accept, redraw or add")

# Web layers.
for source, expected in (
    ("type=xyz&url=https://e.invalid/%7Bz%7D/%7Bx%7D/%7By%7D.png&zmax=18&zmin=0",
     ["https://e.invalid/{z}/{x}/{y}.png#zmax=18"]),
    ("type=xyz&authcfg=abc1234&url=https://e.invalid/%7Bz%7D/%7Bx%7D/%7By%7D.png", None),
    ("crs=EPSG:3857&layers=photo&styles=&format=image/png&url=http://127.0.0.1:9/wms?map=a",
     ["http://127.0.0.1:9/wms?map=a&SERVICE=WMS&REQUEST=GetCapabilities", "--layer", "photo"]),
    ("crs=EPSG:25832&layers=photo&styles=&format=image/png&url=http://127.0.0.1:9/wms", None),
    ("crs=EPSG:3857&layers=photo&styles=infrared&format=image/png&url=http://127.0.0.1:9/w", None),
    ("crs=EPSG:3857&layers=photo&styles=a&tileMatrixSet=g&url=http://127.0.0.1:9/cap.xml",
     ["http://127.0.0.1:9/cap.xml", "--layer", "photo"]),
    ("crs=EPSG:3857&layers=a&tileMatrixSet=g&tileDimensions=Time%3D2019&url=http://127.0.0.1:9",
     None),
):  # fmt: skip
    assert service_of(QgsRasterLayer(source, "web", "wms")) == expected, source
plugin.unload()
print(f"the panel works in QGIS {Qgis.QGIS_VERSION}", flush=True)  # noqa: T201
os._exit(0)  # QGIS without a window sometimes crashes while it ends
