"""The plugin: a provider of Processing algorithms and its settings."""

from __future__ import annotations

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .compare import CompareAlgorithm
from .density import DensityAlgorithm
from .predict import PredictAlgorithm, PredictOnServerAlgorithm
from .run import COMMAND_SETTING

__all__ = ["RooftracePlugin"]


class RooftraceProvider(QgsProcessingProvider):
    """The algorithms of rooftrace in the Processing toolbox."""

    def id(self) -> str:
        return "rooftrace"

    def name(self) -> str:
        return "rooftrace"

    def longName(self) -> str:
        return "rooftrace (buildings from imagery)"

    def icon(self) -> QIcon:
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def load(self) -> bool:
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        ProcessingConfig.addSetting(
            Setting(
                self.name(), COMMAND_SETTING,
                "Path of the command rooftrace (empty: it is searched on PATH)", "",
                valuetype=Setting.FILE,
            )
        )  # fmt: skip
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        ProcessingConfig.removeSetting(COMMAND_SETTING)

    def loadAlgorithms(self) -> None:
        for algorithm in (
            PredictAlgorithm, PredictOnServerAlgorithm, CompareAlgorithm, DensityAlgorithm,
        ):  # fmt: skip
            self.addAlgorithm(algorithm())


class RooftracePlugin:
    """The plugin as QGIS starts and ends it."""

    def __init__(self) -> None:
        self._provider: RooftraceProvider | None = None

    def initProcessing(self) -> None:
        """Add the algorithms; qgis_process calls only this function."""
        self._provider = RooftraceProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Add the algorithms to the toolbox."""
        self.initProcessing()

    def unload(self) -> None:
        """Remove the algorithms."""
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
            self._provider = None
