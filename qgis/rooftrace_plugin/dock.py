"""The panel: find buildings, review them, and fine-tune on the corrections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import processing
from qgis.core import (
    QgsApplication,
    QgsFeature,
    QgsFillSymbol,
    QgsGeometry,
    QgsMapLayerProxyModel,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsReferencedRectangle,
    QgsSingleSymbolRenderer,
    QgsVectorLayer,
)
from qgis.gui import QgsDockWidget, QgsFileWidget, QgsMapLayerComboBox
from qgis.PyQt.QtCore import Qt, QUrl
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from .canvas import AreaTool, ReviewLayer, ReviewTool
from .command import RooftraceProblem
from .inputs import folder_name
from .network import network_variables
from .review import Review, start_review
from .run import command_of_user
from .setup_dialog import SetupDialog, WorkBar, state_of_command
from .tasks import AlgorithmRun, Job

_VIEW, _WHOLE, _DRAWN, _LAYER = range(4)
_MODEL_FILE = "A model file …"


class RooftraceDock(QgsDockWidget):
    """The panel Rooftrace.

    Args:
        iface: Interface of QGIS.
        version: Version of the plugin.
    """

    def __init__(self, iface: Any, version: str) -> None:
        super().__init__("Rooftrace", iface.mainWindow())
        self.setObjectName("RooftraceDock")
        self._canvas = iface.mapCanvas()
        self._area: QgsVectorLayer | None = None
        self._area_tool: AreaTool | None = None
        self._review: Review | None = None
        self._tool: ReviewTool | None = None
        self._shown: ReviewLayer | None = None
        self.setup = SetupDialog(iface.mainWindow(), version, self._show_state)
        self.work = WorkBar()
        content = QWidget()
        column = QVBoxLayout(content)
        column.addLayout(self._make_head())
        column.addWidget(self._make_find())
        column.addWidget(self._make_review())
        column.addWidget(self.work)
        column.addStretch()
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setWidget(content)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        bar = area.verticalScrollBar().sizeHint().width()
        area.setMinimumWidth(content.minimumSizeHint().width() + bar + 2 * area.frameWidth())
        self.setWidget(area)
        self._show_area()
        self._show_review("")
        # The command takes a moment to tell its version: not while QGIS starts.
        self.visibilityChanged.connect(lambda is_shown: self._show_state() if is_shown else None)

    # The parts of the panel.

    def _make_head(self) -> QHBoxLayout:
        self._state, button = QLabel(), QPushButton("Set up…")
        self._state.setWordWrap(True)
        button.clicked.connect(self.setup.show)
        row = QHBoxLayout()
        row.addWidget(self._state, 1)
        row.addWidget(button)
        return row

    def _make_find(self) -> QGroupBox:
        self.image = QgsMapLayerComboBox()
        self.image.setFilters(QgsMapLayerProxyModel.Filter.RasterLayer)
        self.area, self._draw = QComboBox(), QPushButton("Draw")
        self.area.addItems(["Map view", "Whole image", "Drawn area", "Polygons of a layer"])
        self.area.currentIndexChanged.connect(self._show_area)
        self._draw.setToolTip("Click the corners on the map; the right button ends.")
        self._draw.clicked.connect(self.draw_area)
        self.polygons = QgsMapLayerComboBox()
        self.polygons.setFilters(QgsMapLayerProxyModel.Filter.PolygonLayer)
        self.model = QComboBox()
        self.model.addItem("Default (fast)", "")
        self.model.addItem("Accurate (slower)", "accurate")
        self.model.addItem(_MODEL_FILE)
        self.model.activated.connect(self._choose_model)
        self.folder = QgsFileWidget()
        self.folder.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self.folder.setFilePath(str(Path.home() / "rooftrace"))
        self.folder.setToolTip("Each run gets a folder of its own in it.")
        self._find = QPushButton("Find buildings")
        self._find.clicked.connect(self.find_buildings)
        row = QHBoxLayout()
        row.addWidget(self.area, 1)
        row.addWidget(self._draw)
        group = QGroupBox("Find buildings")
        form = QFormLayout(group)
        form.addRow("Image", self.image)
        form.addRow("Area", row)
        form.addRow("", self.polygons)
        form.addRow("Model", self.model)
        form.addRow("Results in", self.folder)
        self.more = QPushButton("More options…")
        self.more.setToolTip("Metres per pixel, threshold, minimum area, and what else is possible")
        self.more.clicked.connect(self.show_options)
        form.addRow(self._find)
        form.addRow(self.more)
        return group

    def _make_review(self) -> QGroupBox:
        self.results = QgsFileWidget()
        self.results.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self._start, self._tune = (
            QPushButton("Start review"),
            QPushButton("Fine-tune on corrections"),
        )
        self._start.clicked.connect(self.toggle_review)
        self._tune.clicked.connect(self.fine_tune)
        self.minutes = QSpinBox()
        self.minutes.setRange(1, 10_000)
        self.minutes.setValue(10)
        self.minutes.setSuffix(" min")
        self.minutes.setToolTip("Minutes to the verdict: training, then the comparison.")
        tune = QHBoxLayout()
        tune.addWidget(self._tune, 1)
        tune.addWidget(self.minutes)
        self._counts, self._hint, self._tools = QLabel(), QLabel(), QWidget()
        for label in (self._counts, self._hint):
            label.setWordWrap(True)
        grid = QGridLayout(self._tools)
        grid.setContentsMargins(0, 0, 0, 0)
        buttons = (
            ("Accept", "A", Qt.Key.Key_A), ("Reject", "R", Qt.Key.Key_R),
            ("Next", "N", Qt.Key.Key_N), ("Click a roof", "C", Qt.Key.Key_C),
            ("Draw new", "B", Qt.Key.Key_B), ("Redraw", "D", Qt.Key.Key_D),
            ("Save", "Enter", Qt.Key.Key_Return), ("Undo", "Z", Qt.Key.Key_Z),
            ("Reopen", "O", Qt.Key.Key_O),
        )  # fmt: skip
        for at, (label, name, key) in enumerate(buttons):
            button = QPushButton(label)
            button.setToolTip(f"{label}: key {name} on the map")
            button.clicked.connect(lambda _=False, key=key: self._press(key))
            grid.addWidget(button, at // 3, at % 3)
        keys = "".join(f"<tr><td><b>{key}</b>&nbsp;</td><td>{does}</td></tr>"
                       for key, does in ReviewTool.KEYS)  # fmt: skip
        help_text = QLabel(f"<small><table>{keys}</table></small>")
        grid.addWidget(help_text, 3, 0, 1, 3)
        group = QGroupBox("Review")
        column = QVBoxLayout(group)
        form = QFormLayout()
        form.addRow("Results", self.results)
        column.addLayout(form)
        for widget in (self._start, self._counts, self._tools, self._hint):
            column.addWidget(widget)
        column.addLayout(tune)
        return group

    def _show_state(self) -> None:
        command, text = state_of_command()
        self._state.setText(text if command else "<b>rooftrace is not installed yet.</b>")
        self._state.setToolTip(text)
        self._find.setEnabled(bool(command))
        self.more.setEnabled(bool(command))
        self._start.setEnabled(bool(command))

    # Find buildings.

    def _show_area(self) -> None:
        self.polygons.setVisible(self.area.currentIndex() == _LAYER)
        self._draw.setVisible(self.area.currentIndex() == _DRAWN)
        if self.area.currentIndex() == _DRAWN and self._area is None:
            self.draw_area()

    def _choose_model(self, at: int) -> None:
        if self.model.itemText(at) == _MODEL_FILE:
            path, _ = QFileDialog.getOpenFileName(self, "Model", "", "Models (*.rooftrace)")
            self._add_model(path)

    def _add_model(self, path: str) -> None:
        if path:
            self.model.insertItem(0, "/".join(Path(path).parts[-3:]), path)
        self.model.setCurrentIndex(0)

    def draw_area(self) -> None:
        """Let the user draw the area on the map."""
        self._area_tool = AreaTool(self._canvas, self._drawn)
        self._canvas.setMapTool(self._area_tool)
        self.work.say("Click the corners of the area on the map; the right button ends.")

    def _drawn(self, polygon: QgsGeometry | None) -> None:
        if polygon is None:
            self.work.say("No area was drawn: it needs three corners.")
            return
        project = QgsProject.instance()
        if self._area is not None:
            project.removeMapLayer(self._area)
        self._area = QgsVectorLayer("Polygon", "Area", "memory")
        self._area.setCrs(self._canvas.mapSettings().destinationCrs())
        feature = QgsFeature()
        feature.setGeometry(polygon)
        self._area.dataProvider().addFeatures([feature])
        self._area.willBeDeleted.connect(self._forget_area)
        outline = {"style": "no", "outline_color": "#1f78b4", "outline_width": "0.8"}
        self._area.setRenderer(QgsSingleSymbolRenderer(QgsFillSymbol.createSimple(outline)))
        project.addMapLayer(self._area)
        self.area.setCurrentIndex(_DRAWN)
        self.work.say("")

    def _forget_area(self) -> None:
        self._area = None

    def find_buildings(self) -> None:
        """Predict the image in the background."""
        parameters = self._parameters()
        if parameters is None:
            return
        layer, out = parameters["INPUT"], Path(parameters["OUTPUT"])

        def done(results: dict[str, Any] | None, problem: str | None) -> None:
            if results is None:
                self._end(problem or "Canceled.")
                return
            self.results.setFilePath(str(out))
            notes = [line for line in run.log.lines if line.startswith("Note: ")]
            found = f"{results['COUNT']:,} buildings were found. They are in {out}."
            self._end("\n".join([found, *notes]))

        run = AlgorithmRun("predict", parameters, f"rooftrace: {layer.name()}", done)
        self._begin(run)

    def show_options(self) -> None:
        """Open the dialog of the toolbox with what is chosen in the panel."""
        parameters = self._parameters()
        if parameters is not None:
            self.dialog = processing.createAlgorithmDialog("rooftrace:predict", parameters)
            self.dialog.algorithmFinished.connect(self._take_results)
            self.dialog.show()

    def _take_results(self, is_done: bool, results: dict[str, Any]) -> None:
        if is_done and "OUTPUT" in results:
            self.results.setFilePath(results["OUTPUT"])

    def _parameters(self) -> dict[str, Any] | None:
        """Return the parameters of `predict`; None, and say why, if one is missing."""
        layer = self.image.currentLayer()
        if layer is None:
            self.work.say("Add an image to the project first: a raster, or a web layer.")
            return None
        parameters: dict[str, Any] = {"INPUT": layer, "MODEL": self.model.currentData() or None}
        kind = self.area.currentIndex()
        if kind == _VIEW:
            crs = self._canvas.mapSettings().destinationCrs()
            parameters["AREA"] = QgsReferencedRectangle(self._canvas.extent(), crs)
        elif kind in (_DRAWN, _LAYER):
            polygons = self._area if kind == _DRAWN else self.polygons.currentLayer()
            if polygons is None:
                self.work.say("Draw the area first, or choose a layer of polygons.")
                return None
            is_selected = kind == _LAYER and polygons.selectedFeatureCount() > 0
            parameters["POLYGONS"] = QgsProcessingFeatureSourceDefinition(
                polygons.id(), is_selected
            )
        out = _free_folder(Path(self.folder.filePath()) / folder_name(layer.name()))
        return {**parameters, "OUTPUT": str(out)}

    def _begin(self, work: Any) -> None:
        for button in (self._find, self._start, self._tune):
            button.setEnabled(False)
        self.work.follow(work)

    def _end(self, text: str) -> None:
        self._tune.setEnabled(True)
        self.work.say(text)
        self._show_state()

    # Review.

    def toggle_review(self) -> None:
        """Start the review of the results, or end it."""
        if self._review is not None:
            self.end_review()
            return
        folder = Path(self.results.filePath())
        if not (folder / "run.json").is_file():
            self.work.say("Choose the folder of a prediction under “Results”, or find buildings.")
            return
        command, variables = command_of_user(), network_variables()
        name = QgsApplication.userFullName() or QgsApplication.userLoginName() or "QGIS"

        def work(job: Job) -> Review:
            job.log.text = "Starting the review …"
            return start_review(command, folder, name, job.isCanceled, variables)

        def done(review: Review | None, problem: str | None) -> None:
            self._end(problem or ("" if review else "Canceled."))
            if review is not None:
                try:
                    self._begin_review(review)
                except RooftraceProblem as reason:
                    self.end_review()
                    self.work.say(str(reason))

        self._begin(Job("Start the review", work, done).start())

    def _begin_review(self, review: Review) -> None:
        self._review = review
        self._shown = ReviewLayer(review, f"{review.image} review")
        self._shown.layer.willBeDeleted.connect(self.end_review)
        self._tool = ReviewTool(self._canvas, review, self._shown, self._show_review)
        self._canvas.setMapTool(self._tool)
        self._canvas.setFocus()
        self._tool.go(backwards=False)

    def end_review(self) -> None:
        """End the review; every decision is saved already."""
        review, self._review = self._review, None
        if review is not None:
            if self._tool is not None:
                self._canvas.unsetMapTool(self._tool)
            self._tool = self._shown = None
            self._export(review)
            review.close()
        self._show_review("")

    def _export(self, review: Review) -> bool:
        """Write the labels, if the review has any; return whether that has not failed."""
        try:
            if review.counts.get("reviewed", 0) > review.counts.get("rejected", 0):
                review.export()
        except RooftraceProblem as problem:
            self.work.say(str(problem))
            return False
        return True

    def _press(self, key: Any) -> None:
        if self._tool is not None:
            self._canvas.setMapTool(self._tool)
            self._tool.press(key)
            self._canvas.setFocus()

    def _show_review(self, text: str) -> None:
        is_on = self._review is not None
        self._tools.setVisible(is_on)
        self._counts.setVisible(is_on)
        self._start.setText("End review" if is_on else "Start review")
        self._hint.setText(text)
        self._hint.setVisible(bool(text))
        if self._review is not None and self._review.counts:
            counts = self._review.counts
            kinds = ", ".join(f"{counts[one]:,} {one}"
                              for one in ("accepted", "rejected", "changed", "added"))  # fmt: skip
            self._counts.setText(
                f"<b>{counts['reviewed']:,} of {counts['total']:,} reviewed</b>: {kinds}"
            )

    # Fine-tune.

    def fine_tune(self) -> None:
        """Train a model on the corrections in the background."""
        review = self._review
        folder = Path(self.results.filePath()) if review is None else review.results
        if review is not None and not self._export(review):
            return
        labels = next(folder.glob("*_reviewed.gpkg"), None)
        if labels is None:
            self.work.say("Accept, redraw or add some buildings in the review first.")
            return
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        image = Path(record["outputs"][0]["input"])
        if not image.is_file():
            self.work.say(
                f"The image of these results is {image}, not a file of this computer. Export it as "
                "a GeoTIFF, find its buildings, and review those."
            )
            return
        out = _free_folder(folder / "tuned")
        # Outside of the area, nobody looked for buildings.
        area = folder / "area.gpkg"
        parameters = {
            "LABELS": str(labels), "AREA": str(area) if area.is_file() else None,
            "IMAGE": str(image), "MODEL": self.model.currentData() or None,
            "MINUTES": self.minutes.value(), "OUTPUT": str(out),
        }  # fmt: skip

        def done(results: dict[str, Any] | None, problem: str | None) -> None:
            if results is None:
                self._end(problem or "Canceled.")
                return
            before, verdict = self.model.currentData(), results["VERDICT"]
            self._add_model(results["TUNED"])
            if "worse" in verdict:
                self.model.setCurrentIndex(self.model.findData(before))
            report = QUrl.fromLocalFile(results["REPORT"]).toString()
            self._end(
                "The tuned model against the start model, on ground that was held out: "
                f"<b>{verdict}</b>. {self.model.currentText()} is chosen under “Model”. "
                f"<a href='{report}'>Open the comparison</a>"
            )

        self._begin(AlgorithmRun("finetune", parameters, "rooftrace: tuned", done))

    def close_all(self) -> None:
        """End what runs, when the plugin is unloaded."""
        self.work.cancel()
        self.setup.work.cancel()
        self.end_review()
        self.setup.close()


def _free_folder(wanted: Path) -> Path:
    """Return a folder that does not exist yet, or holds a canceled prediction, which resumes there:
    `wanted`, or with a number behind it.
    """
    number, free = 2, wanted
    while free.exists() and ((free / "run.json").exists() or not (free / ".rooftrace").is_dir()):
        free, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return free
