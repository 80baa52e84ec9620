"""The dialog that installs rooftrace into an environment of its own."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, Callable

from qgis.core import Qgis, QgsApplication
from qgis.gui import QgsFileWidget
from qgis.PyQt.QtCore import QT_VERSION_STR, QEvent, QTimer
from qgis.PyQt.QtWidgets import (
    QCheckBox,
    QDialog,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from .command import RooftraceProblem, check_version
from .environment import Installation, diagnostics, install
from .network import network_variables, plugin_folder
from .run import command_of_user
from .tasks import Job

_EXTRAS = {
    "serve": ("Review and clicks on roofs", True),
    "services": ("Web layers: XYZ, WMS and WMTS", True),
    "train": ("Fine-tuning with PyTorch (some gigabytes more)", False),
}


def state_of_command() -> tuple[str | None, str]:
    """Return the command of the user, if it works, and a sentence about it."""
    try:
        command = command_of_user()
        return command, f"rooftrace {check_version(command)} is ready."
    except RooftraceProblem as problem:
        return None, str(problem)


class WorkBar(QWidget):
    """Progress of work in the background, with a button that cancels it, a sentence and a log."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._work: Any = None
        self._bar, self._text = QProgressBar(), QLabel()
        self._cancel, self._more = QPushButton("Cancel"), QPushButton("Details")
        self._log = QPlainTextEdit()
        self._log.setReadOnly(True)
        self._log.hide()
        self._text.setWordWrap(True)
        self._text.setOpenExternalLinks(True)
        self._cancel.clicked.connect(self.cancel)
        self._more.setCheckable(True)
        self._more.toggled.connect(self._log.setVisible)
        row = QHBoxLayout()
        row.addWidget(self._bar, 1)
        row.addStretch()
        row.addWidget(self._cancel)
        row.addWidget(self._more)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._text)
        column.addLayout(row)
        column.addWidget(self._log)
        self._timer = QTimer(self)
        self._timer.setInterval(200)
        self._timer.timeout.connect(self._show)
        self.say("")

    @property
    def is_busy(self) -> bool:
        """Return whether work runs."""
        return self._work is not None

    def follow(self, work: Any) -> None:
        """Show a `Job` or an `AlgorithmRun` until `say` is called."""
        self._work, self._lines = work, 0
        self._log.clear()
        self._cancel.setEnabled(True)
        for widget in (self._bar, self._cancel, self._more):
            widget.show()
        self._timer.start()
        self._show()

    def say(self, text: str) -> None:
        """End the progress with a sentence."""
        if self._work is not None:
            self._show()
        self._work = None
        self._timer.stop()
        self._bar.hide()
        self._cancel.hide()
        self._more.setVisible(bool(self._log.toPlainText()))
        self._text.setText(text)
        self._text.setVisible(bool(text))

    def cancel(self) -> None:
        """Cancel the work, if there is any."""
        if self._work is not None:
            self._work.cancel()
            self._cancel.setEnabled(False)

    def _show(self) -> None:
        log = self._work.log
        share = log.progress()
        self._bar.setRange(0, 100 if share else 0)
        self._bar.setValue(int(share))
        self._text.setText(
            "Stopping …" if not self._cancel.isEnabled() else log.text or "Starting …"
        )
        self._text.show()
        for line in log.lines[self._lines :]:
            self._log.appendPlainText(line)
        self._lines = len(log.lines)


class SetupDialog(QDialog):
    """Installs rooftrace, and makes the report of a problem.

    Args:
        parent: Window.
        version: Version of the plugin.
        on_ready: Function that is called when the installation has changed.
    """

    def __init__(self, parent: QWidget | None, version: str, on_ready: Callable[[], None]) -> None:
        super().__init__(parent)
        self._version, self._on_ready = version, on_ready
        self.setWindowTitle("Set up rooftrace")
        self.setMinimumWidth(520)
        intro = QLabel(
            "rooftrace is installed into a folder of its own in your QGIS profile. The Python of "
            "QGIS stays as it is."
        )
        intro.setWordWrap(True)
        intro.setToolTip(str(plugin_folder()))
        self._state = QLabel()
        self._state.setWordWrap(True)
        self._extras = {}
        for extra, (label, is_on) in _EXTRAS.items():
            self._extras[extra] = QCheckBox(label)
            self._extras[extra].setChecked(is_on)
        self._offline = QCheckBox("Without internet, from a folder of wheels:")
        self._wheels = QgsFileWidget()
        self._wheels.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self._wheels.setEnabled(False)
        self._offline.toggled.connect(self._wheels.setEnabled)
        self._install, self._report = QPushButton("Install"), QPushButton("Copy diagnostics")
        self._install.setDefault(True)
        self._install.clicked.connect(self.install)
        self._report.clicked.connect(self.report)
        close = QPushButton("Close")
        close.clicked.connect(self.hide)
        self.work = WorkBar()
        buttons = QHBoxLayout()
        buttons.addWidget(self._report)
        buttons.addStretch()
        buttons.addWidget(self._install)
        buttons.addWidget(close)
        column = QVBoxLayout(self)
        for widget in (intro, self._state, *self._extras.values(), self._offline, self._wheels):
            column.addWidget(widget)
        column.addWidget(self.work)
        column.addStretch()
        column.addLayout(buttons)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._refresh()

    def event(self, event: Any) -> bool:
        handled = super().event(event)
        if event.type() == QEvent.Type.LayoutRequest:
            # Qt does not make a window higher for a text that takes more lines.
            needed = self.layout().totalHeightForWidth(self.width())
            self.resize(self.width(), max(self.height(), needed))
        return handled

    def _refresh(self) -> None:
        command, text = state_of_command()
        self._state.setText(f"<b>{text}</b>" if command else "rooftrace is not installed yet.")
        self._install.setText("Install again" if command else "Install")

    def _begin(self, job: Job) -> None:
        self._install.setEnabled(False)
        self._report.setEnabled(False)
        self.work.follow(job.start())

    def _end(self, text: str) -> None:
        self._install.setEnabled(True)
        self._report.setEnabled(True)
        self.work.say(text)
        self._refresh()
        self._on_ready()

    def install(self) -> None:
        """Make the environment in the background."""
        wheels = Path(self._wheels.filePath()) if self._offline.isChecked() else None
        extras = tuple(name for name, box in self._extras.items() if box.isChecked())
        wanted = Installation(plugin_folder(), extras, wheels, network_variables())

        def work(job: Job) -> str:
            return install(
                wanted, is_canceled=job.isCanceled, on_progress=job.on_progress,
                on_line=job.log.pushInfo,
            )  # fmt: skip

        def done(version: str | None, problem: str | None) -> None:
            ready = "Done. Close this window, choose an image, and press “Find buildings”."
            self._end(problem or (ready if version else "Canceled. Nothing has changed."))

        self._begin(Job("Install rooftrace", work, done))

    def report(self) -> None:
        """Copy a report of the installation to the clipboard."""
        about = {
            "plugin": self._version, "QGIS": Qgis.QGIS_VERSION, "Qt": QT_VERSION_STR,
            "Python of QGIS": platform.python_version(), "system": platform.platform(),
        }  # fmt: skip
        command, state = state_of_command()
        about["state"] = state

        def done(text: str | None, problem: str | None) -> None:
            if text:
                QgsApplication.clipboard().setText(text)
            self._end(problem or ("The report is in the clipboard: paste it into the issue."
                                  if text else "Canceled."))  # fmt: skip

        self._begin(
            Job("Diagnostics of rooftrace", lambda job: diagnostics(command, about, job.isCanceled),
                done)
        )  # fmt: skip
