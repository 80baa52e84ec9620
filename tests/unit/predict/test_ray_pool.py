"""Test clusters that do not answer, and workers that cannot start."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from rooftrace.core.errors import ConfigError, PredictError
from rooftrace.predict.cluster.driver import Driver
from rooftrace.predict.cluster.pool import ClusterOptions, Event, Joined, Lost, RayPool
from rooftrace.predict.cluster.worker import Facts
from rooftrace.predict.model_set import ModelSet, read_models

pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.mark.parametrize(
    "address", ["nonsense", "here:", ":6379", "host:0", "host:65536", "host:x"]
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected local, auto or HOST:PORT"):
        RayPool(ClusterOptions(address), read_models(None)).__enter__()


def test_an_address_without_a_listener_is_refused() -> None:
    with socket.socket() as taken:
        # The port is taken, but no process listens at it.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ConfigError, match=f"No Ray cluster answers at {address}: "):
            RayPool(ClusterOptions(address), read_models(None)).__enter__()
        # Ray itself takes more than five minutes.
        assert time.monotonic() - began < 60


@pytest.mark.campaign
def test_a_machine_on_which_no_worker_can_be_created(tmp_path: Path) -> None:
    facts = Facts("none", "fp32", {}, (), {}, "here")

    class Sometimes:
        """A worker whose first construction fails."""

        def __init__(self, models: ModelSet, threads: int | None, folder: Path) -> None:
            try:
                (tmp_path / "made").mkdir()
            except FileExistsError:
                return
            raise PredictError("The processor is broken.", remedy="Mend it.")

        def facts(self) -> Facts:
            return facts

    events: list[Event] = []
    until = time.monotonic() + 60
    with RayPool(ClusterOptions(workers=2), read_models(None), Sometimes) as pool:
        assert pool.machines == 1
        while len(events) < 2 and time.monotonic() < until:
            events += pool.wait(0.5)
    (joined,) = (event for event in events if isinstance(event, Joined))
    (lost,) = (event for event in events if isinstance(event, Lost))
    assert joined.facts == facts
    assert lost.reason == "The processor is broken"
    assert joined.worker != lost.worker


@pytest.mark.campaign
def test_a_worker_that_no_machine_can_create() -> None:
    class Never:
        def __init__(self, models: ModelSet, threads: int | None, folder: Path) -> None:
            raise PredictError("The model is broken.", remedy="Mend it.")

        def facts(self) -> Facts:
            raise AssertionError

    with (
        RayPool(ClusterOptions(workers=2), read_models(None), Never) as pool,
        pytest.raises(PredictError, match=r"^The model is broken\. Mend it\.$"),
    ):
        Driver(pool).begin()


@pytest.mark.campaign
def test_machines_that_lack_the_package() -> None:
    # The class is sent by name; only this process knows its module.
    with (
        RayPool(ClusterOptions(workers=1), read_models(None), Elsewhere) as pool,
        pytest.raises(PredictError, match=r"cannot start: ModuleNotFoundError: .*Install the same"),
    ):
        Driver(pool).begin()


class Elsewhere:
    def __init__(self, models: ModelSet, threads: int | None, folder: Path) -> None:
        raise AssertionError

    def facts(self) -> Facts:
        raise AssertionError
