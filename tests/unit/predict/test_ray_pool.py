"""Addresses at which there is no cluster are errors in a moment."""

from __future__ import annotations

import socket
import time

import pytest

from rooftrace.core.errors import ConfigError
from rooftrace.predict.cluster.ray_pool import ClusterOptions, RayPool
from rooftrace.predict.model_set import read_models

pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.mark.parametrize(
    "address", ["nonsense", "here:", ":6379", "host:0", "host:65536", "host:x"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="expected local, auto or HOST:PORT"):
        RayPool(ClusterOptions(address), read_models(None)).__enter__()


def test_where_nobody_listens() -> None:
    with socket.socket() as taken:
        # Taken, and not listened at.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ConfigError, match=f"No Ray cluster answers at {address}: "):
            RayPool(ClusterOptions(address), read_models(None)).__enter__()
        # Ray itself takes more than five minutes.
        assert time.monotonic() - began < 60
