"""A model that labels the tasks of a Label Studio server."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from rooftrace.core.errors import BusyError, DataError, LabelError, RooftraceError
from rooftrace.data.labelstudio.references import GSD_KEY
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.result import Prediction
from rooftrace.service.labelling.images import TaskImages
from rooftrace.service.labelling.interface import Tool, read_interface
from rooftrace.service.labelling.regions import drawn_area, regions_of
from rooftrace.service.service import Service

__all__ = ["Labeller"]

_log = logging.getLogger(__name__)

MOST_AT_ONCE = 16
PATIENCE_S = 60.0
"""Label Studio waits 100 s for an answer, and forgets what comes later. It asks for up to 1,000
tasks at once; where it gets one prediction for several tasks, it asks again for each alone."""

_LONGEST_WAIT_S = 5.0
_MOST_GSD_M = 1e6


class Labeller:
    """Predictions for tasks, as Label Studio shows them to its annotators.

    Args:
        service: the model.
        url, token: see `TaskImages`.

    Raises:
        ConfigError: see `TaskImages`.
    """

    def __init__(self, service: Service, url: str | None = None, token: str | None = None) -> None:
        self._service = service
        self._images = TaskImages(url, token, service.limits.upload_bytes)
        bundle = service.bundle
        self.model_version = f"{bundle.spec.name}-{bundle.sha256[:8]}"
        self._pool = ThreadPoolExecutor(service.limits.running, "labelling")

    def introduce(
        self, project: str, interface: str, hostname: str, token: str, *, near: bool
    ) -> Tool:
        """A project is connected: whether its interface can be filled, and where its images are.

        Args:
            interface: the labelling interface, as XML.
            project, hostname, token, near: see `TaskImages.introduce`; no host: nothing said.

        Raises:
            ConfigError: see `read_interface` and `TaskImages.introduce`.
        """
        tool = read_interface(interface, self._service.bundle.spec)
        if hostname and token:
            self._images.introduce(project, hostname, token, near=near)
        return tool

    def predictions(
        self,
        tasks: Sequence[Mapping[str, Any]],
        interface: str,
        project: str,
        context: object = None,
    ) -> list[dict[str, Any]]:
        """One entry for each task: a prediction, or `{"error": sentence}`.

        An error has no `result`, so that Label Studio stores nothing for that task; an empty
        prediction would say that there are no buildings. Of many tasks, or where they take long,
        only the first is answered: Label Studio then asks for each alone.

        Args:
            tasks: with `id` and `data`.
            interface: the labelling interface, as XML.
            project: as Label Studio names it.
            context: what was drawn with a smart tool, see `drawn_area`.

        Raises:
            ConfigError: see `read_interface`.
        """
        tool = read_interface(interface, self._service.bundle.spec)
        if len(tasks) > MOST_AT_ONCE:
            tasks = tasks[:1]
        answers = [self._pool.submit(self._answer, task, tool, project, context) for task in tasks]
        _, late = wait(answers, timeout=PATIENCE_S)
        if late and len(answers) > 1:
            for answer in late:
                answer.cancel()
            answers = answers[:1]
            if answers[0].cancelled():
                raise BusyError("The service has too much to do.", remedy="Ask again in a while.")
        return [answer.result() for answer in answers]

    def _answer(
        self, task: Mapping[str, Any], tool: Tool, project: str, context: object
    ) -> dict[str, Any]:
        number = task.get("id")
        number = number if isinstance(number, int) else None
        try:
            made = self._predict(task, number, tool, project)
            drawn = drawn_area(context, made.mask.grid.shape)
            results = regions_of(made, tool, drawn)
        except RooftraceError as error:
            said = _one_line(str(error))
            _log.warning("task %s of project %s: %s", number, _one_line(project), said)
            return {"error": said, "model_version": self.model_version}
        scores = [result["score"] for result in results if "score" in result]
        prediction: dict[str, Any] = {"result": results, "model_version": self.model_version}
        return prediction | ({"score": float(np.mean(scores))} if scores else {})

    def _predict(
        self, task: Mapping[str, Any], number: int | None, tool: Tool, project: str
    ) -> Prediction:
        data = task.get("data")
        if not isinstance(data, Mapping) or tool.key not in data:
            raise DataError(
                f"The task {number} has no {tool.key!r} in its data, where the labelling "
                "interface looks for its image.",
                remedy="Import it again with that key, or change the interface.",
            )
        said = data.get(GSD_KEY)
        gsd_m = tool.settings.gsd_m if said is None else said
        if gsd_m is not None and (isinstance(gsd_m, bool) or not isinstance(gsd_m, int | float)
                                  or not 0 < gsd_m < _MOST_GSD_M):  # fmt: skip
            raise LabelError(
                f"The task {number} has {GSD_KEY} = {str(gsd_m)[:40]!r} in its data; expected "
                "metres per pixel.",
                remedy="Import it again with a number.",
            )
        options = SceneOptions(
            gsd_m=gsd_m,
            threshold=tool.settings.threshold,
            min_area_m2=tool.settings.min_area_m2,
            outputs=("mask", "polygons"),
        )
        image = self._images.fetch(data[tool.key], number, project)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._service.predict(image.data, image.name, options)
            except BusyError as error:
                pause = min(error.retry_after_s, _LONGEST_WAIT_S)
                if time.monotonic() + pause > until:
                    raise
                time.sleep(pause)


def _one_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)
