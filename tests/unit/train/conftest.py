"""Fixtures of the tests of training."""

from __future__ import annotations

import multiprocessing
import sys

import pytest


@pytest.fixture
def clean_workers(monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Start method of processes that prepare samples, in place of a fork of this process.

    Earlier tests have left threads in this process, of servers and of Ray for example, and a fork
    can wait for ever for a lock that one of them held. The fork itself is tested by the tests that
    run `rooftrace train` as a process.
    """
    method = "forkserver" if sys.platform == "linux" else None
    if method is not None:
        # The server imports torch once, and not each worker for itself.
        multiprocessing.get_context(method).set_forkserver_preload(["rooftrace.train.datamodule"])
    monkeypatch.setattr("rooftrace.train.datamodule.loader_start_method", lambda: method)
    return method
