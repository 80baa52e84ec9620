"""The plugin: a provider of Processing algorithms and its settings."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path
from typing import Any

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtCore import Qt, QUrl
from qgis.PyQt.QtGui import QDesktopServices, QIcon

from .compare import CompareAlgorithm
from .density import DensityAlgorithm
from .finetune import FinetuneAlgorithm
from .heights import HeightsAlgorithm
from .predict import PredictAlgorithm, PredictOnServerAlgorithm
from .run import COMMAND_SETTING

_HELP = Path(__file__).with_name("help.html")
"""Page that `tools/qgis_plugin.py` writes into the zip."""


class RooftraceProvider(QgsProcessingProvider):
    """The algorithms of rooftrace in the Processing toolbox."""

    def id(self) -> str:
        return "rooftrace"

    def name(self) -> str:
        return "rooftrace"

    def longName(self) -> str:
        return "rooftrace (buildings from imagery)"

    def icon(self) -> QIcon:
        return _icon()

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
            HeightsAlgorithm, FinetuneAlgorithm,
        ):  # fmt: skip
            self.addAlgorithm(algorithm())


class RooftracePlugin:
    """The plugin as QGIS starts and ends it.

    Args:
        iface: Interface of QGIS; None without a window.
    """

    def __init__(self, iface: Any) -> None:
        self._iface = iface
        self._provider: RooftraceProvider | None = None
        self.dock: Any = None

    def initProcessing(self) -> None:
        """Add the algorithms; qgis_process calls only this function."""
        self._provider = RooftraceProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Add the algorithms to the toolbox, and the panel with its button and menu."""
        from .dock import RooftraceDock  # qgis_process has no windows

        self.initProcessing()
        self.dock = RooftraceDock(self._iface, _version())
        self._iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self.dock)
        self.dock.hide()
        icon = _icon()
        toggle = self.dock.toggleViewAction()
        toggle.setIcon(icon)
        self._iface.addToolBarIcon(toggle)
        menu = self._iface.pluginMenu().addMenu(icon, "Rooftrace")
        menu.addAction(toggle)
        menu.addAction("Set up…", self.dock.setup.show)
        if _HELP.is_file():
            help_page = QUrl.fromLocalFile(str(_HELP))
            menu.addAction("Help", lambda: QDesktopServices.openUrl(help_page))
        self._menu, self._toggle = menu, toggle

    def unload(self) -> None:
        """Remove all of it, and end what runs."""
        if self.dock is not None:
            self.dock.close_all()
            self._iface.removeToolBarIcon(self._toggle)
            self._iface.pluginMenu().removeAction(self._menu.menuAction())
            self._iface.removeDockWidget(self.dock)
            self.dock.deleteLater()
            self.dock = None
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
            self._provider = None


def _icon() -> QIcon:
    return QIcon(str(Path(__file__).with_name("icon.svg")))


def _version() -> str:
    metadata = ConfigParser(interpolation=None)
    metadata.read(Path(__file__).with_name("metadata.txt"), encoding="utf-8")
    return metadata["general"]["version"]
