"""The part that all algorithms share: find and run the command, and load its results."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
    QgsProcessingUtils,
)
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtXml import QDomDocument

from .command import (
    Canceled,
    Progress,
    RooftraceProblem,
    check_version,
    find_command,
    run_command,
    split_options,
)
from .environment import current_command
from .inputs import copy_image, image_of
from .network import network_variables, plugin_folder

COMMAND_SETTING = "ROOFTRACE_COMMAND"
_HERE = Path(__file__).parent

_IN_QGIS = {
    "-a_nodata": "Layer Properties > Transparency > Additional no data value",
    "-unsetnodata": "untick “No data value” under Layer Properties > Transparency",
    "-a_ullr": "Raster > Georeferencer",
    "-a_srs": "Layer > Set CRS of Layer(s)",
    "gdal_translate": "Raster > Conversion > Translate",
    "ogr2ogr": "Layer > Save As…",
}
"""What does the same as a command of GDAL in a remedy, the most special command first."""

_TEXT_S = 10.0
"""Minimum number of seconds between two texts of the progress of a step."""


class LoadStyle(QgsProcessingLayerPostProcessorInterface):
    """Style of a layer that is loaded after an algorithm.

    Args:
        name: File in `styles`; empty for the one in the layer's file or beside it.
        is_shown: Whether the layer is visible at first.
        in_pixels: Whether the coordinates of the layer are pixels.
    """

    # One list for all styles, on purpose: see `named`.
    _kept: list[LoadStyle] = []  # noqa: RUF012

    def __init__(self, name: str, is_shown: bool, in_pixels: bool) -> None:
        super().__init__()
        self._name, self._is_shown, self._in_pixels = name, is_shown, in_pixels

    @classmethod
    def named(cls, name: str, *, is_shown: bool = True, in_pixels: bool = False) -> LoadStyle:
        """Return a new style, which Python keeps until QGIS deletes it with its context."""
        style = cls(name, is_shown, in_pixels)
        cls._kept.append(style)
        return style

    @classmethod
    def of_file(cls, *, is_shown: bool = True) -> LoadStyle:
        """Return the style in the layer's file or beside it, see `named`."""
        return cls.named("", is_shown=is_shown)

    def postProcessLayer(self, layer: Any, context: Any, feedback: Any) -> None:
        if self._name:
            # loadNamedStyle would take the style inside of a GeoPackage in place of this file.
            style = QDomDocument()
            path = _HERE / "styles" / f"{self._name}.qml"
            style.setContent(path.read_text(encoding="utf-8"))
            loaded, message = layer.importNamedStyle(style)
            if not loaded:
                feedback.pushWarning(f"The style {self._name} was not loaded: {message}")
        else:
            layer.loadDefaultStyle()  # Processing loads layers without it
        if self._in_pixels:
            layer.setCrs(QgsCoordinateReferenceSystem())
        node = None if self._is_shown else context.project().layerTreeRoot().findLayer(layer.id())
        if node is not None:
            node.setItemVisibilityChecked(False)
            node.setExpanded(False)
        layer.triggerRepaint()


def command_of_user() -> str:
    """Return the command of the setting, of the plugin's own environment, or on PATH.

    Raises:
        RooftraceProblem: It is missing.
    """
    setting = ProcessingConfig.getSetting(COMMAND_SETTING) or ""
    return find_command(setting, current_command(plugin_folder()))


class RooftraceAlgorithm(QgsProcessingAlgorithm):
    """Base of the algorithms.

    A subclass declares its parameters, returns the arguments of the command, and loads the results.
    Layers are read in the main thread, before the command runs in another one.
    """

    NAME = TITLE = PURPOSE = ""
    TAGS: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.labels: dict[str, str] = {}
        self._numbers: dict[str, str] = {}
        self._copies: list[Any] = []
        self._text_shown = "", 0.0

    def createInstance(self) -> RooftraceAlgorithm:
        return type(self)()

    def name(self) -> str:
        return self.NAME

    def displayName(self) -> str:
        return self.TITLE

    def shortDescription(self) -> str:
        return self.PURPOSE.split(". ")[0].rstrip(".") + "."

    def shortHelpString(self) -> str:
        rows = [
            f"<p><b>{one.description()}</b>: {one.help()}</p>"
            for one in self.parameterDefinitions()
            if one.help()
        ]
        return f"<p>{self.PURPOSE}</p>" + "".join(rows)

    def icon(self) -> QIcon:
        return QIcon(str(_HERE / "icon.svg"))

    def tags(self) -> list[str]:
        return ["buildings", "footprints", "imagery", *self.TAGS]

    def canExecute(self) -> tuple[bool, str]:
        try:
            command_of_user()
        except RooftraceProblem as problem:
            return False, str(problem)
        return True, ""

    def add(self, parameter: Any, text: str, option: str = "", *, advanced: bool = False) -> None:
        """Declare a parameter.

        Args:
            parameter: Parameter.
            text: Help for it.
            option: Option of the command that messages of rooftrace name.
            advanced: Whether dialogs show it only on request.
        """
        parameter.setHelp(text)
        if advanced:
            flag = QgsProcessingParameterDefinition.Flag.FlagAdvanced
            parameter.setFlags(parameter.flags() | flag)
        self.addParameter(parameter)
        if option:
            self.labels[option] = parameter.description()

    def add_number(
        self, name: str, option: str, label: str, text: str, lowest: float, highest: float = 1e9
    ) -> None:
        """Declare an optional number that is an option of the command."""
        real = QgsProcessingParameterNumber.Type.Double
        number = QgsProcessingParameterNumber(name, label, real, None, True, lowest, highest)
        self.add(number, text, option)
        self._numbers[name] = option

    def add_model(self, label: str, option: str = "--model") -> None:
        """Declare the parameter MODEL."""
        kinds = "Models (*.rooftrace);;All files (*)"
        self.add(
            QgsProcessingParameterFile("MODEL", label, optional=True, fileFilter=kinds),
            "Path of a .rooftrace file, or accurate. Empty, or default: the faster bundled model.",
            option,
        )

    def image(self, parameters: Any, name: str, context: QgsProcessingContext) -> str | None:
        """Return the image file of a raster layer; None if the parameter is empty.

        Raises:
            RooftraceProblem: See `image_of`.
        """
        if parameters.get(name) in (None, ""):
            return None
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            label = self.parameterDefinition(name).description()
            raise RooftraceProblem(f"The layer of “{label}” cannot be opened: {parameters[name]}.")
        return image_of(layer, self.out / name.lower(), self._copies)

    def numbers(self, parameters: Any, context: QgsProcessingContext) -> dict[str, str]:
        """Return the numbers that the user has given, by their options."""
        return {
            option: repr(self.parameterAsDouble(parameters, name, context))
            for name, option in self._numbers.items()
            if parameters.get(name) not in (None, "")
        }

    def add_last(self, page: str) -> None:
        """Declare the parameters that all algorithms have."""
        self.add(
            QgsProcessingParameterString("OPTIONS", "Further options", "", optional=True),
            f"Options of the command as in a terminal; rooftrace {page} --help lists them.",
            advanced=True,
        )
        self.add_folder()

    def add_folder(self) -> None:
        """Declare the folder of the results."""
        self.add(
            QgsProcessingParameterFolderDestination("OUTPUT", "Folder for the results"),
            "All files are written here. A run that was canceled resumes if it is started again "
            "with the same folder.",
        )

    def arguments(
        self, parameters: Any, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> list[str]:
        """Return the arguments of the command, without numbers and the further options.

        Raises:
            RooftraceProblem: A parameter cannot be used.
        """
        raise NotImplementedError

    def results(
        self, answer: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Load the files of a finished command and return the outputs of the algorithm."""
        raise NotImplementedError

    def prepareAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> bool:
        can_execute, reason = self.canExecute()  # qgis_process does not ask
        if not can_execute:
            raise QgsProcessingException(reason)
        try:
            self.out = Path(self.parameterAsString(parameters, "OUTPUT", context)).absolute()
            self.out.mkdir(parents=True, exist_ok=True)
            self._network = network_variables()
            self._arguments = self.arguments(parameters, context, feedback)
            for option, number in self.numbers(parameters, context).items():
                self._arguments += [option, number]
            options = self.parameterAsString(parameters, "OPTIONS", context)
            self._arguments += split_options(options)
        except (RooftraceProblem, OSError, ValueError) as problem:
            raise QgsProcessingException(str(problem)) from None
        return True

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        try:
            for copy in self._copies:
                copy_image(*copy, feedback)
            answer = self.execute(feedback)
        except Canceled:
            feedback.pushInfo(
                f"Stopped. To resume, start it again with the same folder, {self.out}."
            )
            return {}
        except RooftraceProblem as problem:
            raise QgsProcessingException(self._in_labels(str(problem))) from None
        self.show_notes(answer.get("notes", ()), feedback)
        if Path(QgsProcessingUtils.tempFolder()) in self.out.parents:
            feedback.pushWarning(
                f"QGIS deletes {self.out} when it closes, and the layers in it. Choose a “Folder "
                "for the results” to keep them."
            )
        return self.results(answer, context, feedback)

    def show_notes(self, notes: Iterable[str], feedback: QgsProcessingFeedback) -> None:
        """Show the notes of rooftrace in the words of the dialog."""
        for note in notes:
            feedback.pushInfo(f"Note: {self._in_labels(note)}")

    def execute(self, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run the command and return its answer.

        Raises:
            Canceled: The user has canceled.
            RooftraceProblem: The command is missing or too old, or has failed.
        """
        command = command_of_user()
        feedback.pushInfo(f"{command}, version {check_version(command)}")
        feedback.pushCommandInfo(" ".join(map(shlex.quote, ["rooftrace", *self._arguments])))
        return run_command(
            [command, *self._arguments],
            is_canceled=feedback.isCanceled,
            on_progress=lambda progress: self.show(progress, feedback),
            on_line=feedback.pushConsoleInfo,
            variables=self._network,
        )

    def show(self, progress: Progress, feedback: QgsProcessingFeedback) -> None:
        """Show the progress of a command."""
        if progress.share is not None:
            feedback.setProgress(100 * progress.share)
        # Each text stays in the log of the dialog.
        step, at = self._text_shown
        if progress.step != step or time.monotonic() - at >= _TEXT_S:
            self._text_shown = progress.step, time.monotonic()
            feedback.setProgressText(f"{progress.step}: {progress.text}")

    def load(
        self, path: Path, title: str, output: str, style: LoadStyle, context: QgsProcessingContext
    ) -> str:
        """Load a result into the project of the user, if there is one; return its path."""
        if context.project() is not None:
            details = QgsProcessingContext.LayerDetails(title, context.project(), output)
            details.forceName = True
            details.setPostProcessor(style)
            context.addLayerToLoadOnCompletion(str(path), details)
        return str(path)

    def _in_labels(self, message: str) -> str:
        """Return a message with labels of parameters and layers for options and temporary files."""
        for option, label in self.labels.items():
            message = re.sub(
                rf"{re.escape(option)}(?![\w-])", lambda _, to=label: f"“{to}”", message
            )
        ways = [way for command, way in _IN_QGIS.items() if command in message]
        message += f" (In QGIS: {ways[0]}.)" if ways else ""
        left = re.search(r"(?<!\S)--[a-z-]+", message)
        if left and self.parameterDefinition("OPTIONS"):
            message += f" ({left[0]}: under “Further options”.)"
        return message
