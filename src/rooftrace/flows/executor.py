"""Where the scenes of a run go through the network: in this process, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.passage import SceneStream
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene import BLOCK_PX
from rooftrace.predict.stream import run_streams

if TYPE_CHECKING:
    from rooftrace.predict.cluster.driver import Driver
    from rooftrace.predict.cluster.ray_pool import ClusterOptions
    from rooftrace.predict.cluster.tasks import Task, TaskTaker

__all__ = ["Executor", "Here", "executing"]


_WHOLE_PX = 600 * 10**6
"""Up to here a scene of several may be done by one worker, files and all: minutes at most are lost
with it, and the driver has next to nothing to do."""

_BUSY_WITH_BLOCKS = 4
"""Workers at whose rate one driver takes the blocks of scenes and ends them, see docs/scale.md."""


class Executor(Protocol):
    """What runs scenes."""

    @property
    def predictor(self) -> Predictor:
        """The model, whose engine may be elsewhere."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What the person should know of the run."""
        ...

    def run(self, scenes: Iterable[SceneStream]) -> None:
        """As `run_streams`."""
        ...

    def is_apart(self, pixels: int, total_px: int) -> bool:
        """Whether an image of several, by its pixels and those of all, is for `run_apart`."""
        ...

    def run_apart(self, tasks: Iterable[Task], taker: TaskTaker) -> None:
        """Have tasks of `SceneWorker` done, elsewhere."""
        ...

    def record(self) -> dict[str, Any]:
        """What is told of it in run.json."""
        ...


@dataclass(frozen=True)
class Here:
    """In the same process."""

    predictor: Predictor

    @property
    def notes(self) -> Sequence[str]:
        return ()

    def run(self, scenes: Iterable[SceneStream]) -> None:
        run_streams(scenes, self.predictor.engine)

    def is_apart(self, pixels: int, total_px: int) -> bool:
        return False

    def run_apart(self, tasks: Iterable[Task], taker: TaskTaker) -> None:
        raise AssertionError("there is nobody else")

    def record(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class _OnCluster:
    predictor: Predictor
    driver: Driver

    @property
    def notes(self) -> Sequence[str]:
        return self.driver.notes

    def run(self, scenes: Iterable[SceneStream]) -> None:
        self.driver.run(scenes)

    def is_apart(self, pixels: int, total_px: int) -> bool:
        # One that is a good part of all there is would be waited for: all workers share it.
        fair_px = total_px / min(self.driver.size, _BUSY_WITH_BLOCKS)
        return pixels <= min(_WHOLE_PX, max(fair_px, BLOCK_PX**2))

    def run_apart(self, tasks: Iterable[Task], taker: TaskTaker) -> None:
        self.driver.run_tasks(tasks, taker)

    def record(self) -> dict[str, Any]:
        return {"cluster": {"nodes": self.driver.nodes, **asdict(self.driver.tally)}}


@contextmanager
def executing(models: ModelSet, cluster: ClusterOptions | None = None) -> Iterator[Executor]:
    """Models that are ready to run, for as long as the block lasts.

    Args:
        models: that were read.
        cluster: where; None for this process.

    Raises:
        MissingExtraError: the cluster's package is not installed.
        ConfigError: no cluster answers, or it has not what was asked for.
        PredictError: no worker comes.
        BundleError, GsdMismatch: as `ModelSet.ready`.
    """
    if cluster is None:
        yield Here(models.ready())
        return
    from rooftrace.flows.whole import SceneWorker
    from rooftrace.predict.cluster.driver import Driver
    from rooftrace.predict.cluster.ray_pool import RayPool
    from rooftrace.predict.cluster.worker import described

    with RayPool(cluster, models, SceneWorker) as pool:
        driver = Driver(pool)
        yield _OnCluster(described(driver.begin(), models), driver)
