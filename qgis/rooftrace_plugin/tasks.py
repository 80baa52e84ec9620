"""Work in the background of QGIS, with progress, cancel, and the reason of a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from qgis.core import (
    QgsApplication,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsTask,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QTimer

from .command import Canceled, Progress, RooftraceProblem

_kept: set[Any] = set()
"""Work that runs: QGIS does not own the objects of Python."""


class Log(QgsProcessingFeedback):
    """Feedback whose texts a timer of the panel may read from another thread."""

    def __init__(self) -> None:
        super().__init__(False)
        self.text, self.lines, self.errors = "", [], []

    def setProgressText(self, text: str) -> None:
        self.text = text

    def reportError(self, error: str, fatalError: bool = False) -> None:
        self.errors.append(error)
        self.lines.append(error)

    def _keep(self, line: str) -> None:
        self.lines.append(line)

    pushInfo = pushWarning = pushCommandInfo = pushDebugInfo = _keep

    def pushConsoleInfo(self, line: str) -> None:
        self.text = line
        self.lines.append(line)


class Job(QgsTask):
    """A function that runs in the background.

    Args:
        title: Name in the task manager.
        work: Function that takes this job, and raises `Canceled` or `RooftraceProblem`.
        done: Function that takes the result and the reason of a failure, in the main thread; both
            are None if the user has canceled.
    """

    def __init__(
        self, title: str, work: Callable[[Job], Any], done: Callable[[Any, str | None], None]
    ) -> None:
        super().__init__(title, QgsTask.Flag.CanCancel)
        self._work, self._done = work, done
        self._result: Any = None
        self._problem: str | None = None
        self.log = Log()

    def start(self) -> Job:
        """Start it; it keeps itself alive until its end."""
        _kept.add(self)
        QgsApplication.taskManager().addTask(self)
        return self

    def on_progress(self, progress: Progress) -> None:
        """Show a progress."""
        self.log.text = f"{progress.step}: {progress.text}"
        self.log.setProgress(0 if progress.share is None else 100 * progress.share)

    def run(self) -> bool:
        try:
            self._result = self._work(self)
        except Canceled:
            return False
        except RooftraceProblem as problem:
            self._problem = str(problem)
        except Exception as error:  # a fault of the plugin must not end QGIS
            self._problem = f"{type(error).__name__}: {error}"
        return self._problem is None

    def finished(self, result: bool) -> None:
        _kept.discard(self)
        self._done(self._result, self._problem)


class AlgorithmRun:
    """An algorithm of the plugin that runs in the background; its layers are loaded at the end.

    Args:
        name: Name of the algorithm, such as predict.
        parameters: Its parameters.
        title: Name of the group of the loaded layers.
        done: Function that takes the results and the reason of a failure, in the main thread; both
            are None if the user has canceled.
    """

    def __init__(
        self,
        name: str,
        parameters: dict[str, Any],
        title: str,
        done: Callable[[dict[str, Any] | None, str | None], None],
    ) -> None:
        # QGIS keeps no reference to layers among the parameters.
        self._title, self._done, self._parameters = title, done, parameters
        self.log, self._context = Log(), QgsProcessingContext()
        self._context.setProject(QgsProject.instance())
        self._context.setFeedback(self.log)
        algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"rooftrace:{name}")
        self._task = QgsProcessingAlgRunnerTask(algorithm, parameters, self._context, self.log)
        _kept.add(self)
        if self.log.isCanceled():
            # A parameter cannot be used: QGIS cancels such a task without a signal.
            QTimer.singleShot(0, lambda: self._end(None, self._reason()))
            return
        self._task.executed.connect(self._executed)
        QgsApplication.taskManager().addTask(self._task)

    def cancel(self) -> None:
        """Stop it as soon as possible."""
        self.log.cancel()

    def _executed(self, is_done: bool, results: dict[str, Any]) -> None:
        if self.log.isCanceled():
            self._end(None, None)
        elif not is_done:
            self._end(None, self._reason())
        else:
            self._load()
            self._end(dict(results), None)

    def _end(self, results: dict[str, Any] | None, problem: str | None) -> None:
        _kept.discard(self)
        self._done(results, problem)

    def _reason(self) -> str:
        return self.log.errors[-1] if self.log.errors else "The work has failed."

    def _load(self) -> None:
        """Load the layers into a group of their own, polygons above rasters."""
        project = QgsProject.instance()
        found = self._context.layersToLoadOnCompletion()
        if not found:
            return
        group = project.layerTreeRoot().insertGroup(0, self._title)
        for source in sorted(found, key=lambda one: not one.endswith(".tif")):
            details = found[source]
            if Path(source).suffix == ".tif":
                layer: Any = QgsRasterLayer(source, details.name)
            else:
                layer = QgsVectorLayer(source, details.name, "ogr")
            project.addMapLayer(layer, False)
            group.insertLayer(0, layer)
            details.postProcessor().postProcessLayer(layer, self._context, self.log)
