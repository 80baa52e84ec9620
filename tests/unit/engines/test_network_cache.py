"""Compiled networks on disk: the same answers, and nothing that is damaged or too much."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from rooftrace.engines import network_cache, openvino
from rooftrace.engines.network_cache import NetworkCache
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.engines.select import load_engine
from rooftrace.flows.doctor import tiny_bundle

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 3, 40, 64), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "rooftrace" / "networks"


def test_what_was_saved_comes_back_unless_it_is_damaged(tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path / "networks")
    assert cache.load("a", 1) is None
    cache.save(b"network", "a", 1)
    assert cache.load("a", 1) == b"network"
    assert cache.load("a", 2) is None
    (file,) = (tmp_path / "networks").iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"?", b""):
        file.write_bytes(damaged)
        assert cache.load("a", 1) is None


def test_those_that_were_used_longest_ago_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_cache, "_MAX_BYTES", 350)
    cache = NetworkCache(tmp_path)
    for number in range(3):
        cache.save(bytes(60), number)
        for file in tmp_path.iterdir():
            os.utime(file, (file.stat().st_mtime - 100,) * 2)
    assert cache.load(0) is not None
    cache.save(bytes(200), 3)
    assert [number for number in range(4) if cache.load(number) is not None] == [0, 3]


def test_a_folder_that_cannot_be_used_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = NetworkCache(tmp_path / "file" / "networks")
    cache.save(b"network", "a")
    assert cache.load("a") is None


def test_a_network_of_the_cache_answers_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_engine(tiny_bundle(), engine="openvino").run(PIXELS)
    assert len(list(folder.iterdir())) == 2
    compiled: list[object] = []
    compile_network = OpenVinoEngine._compile
    monkeypatch.setattr(
        OpenVinoEngine,
        "_compile",
        lambda *given: compiled.append(given[1:]) or compile_network(*given),
    )
    np.testing.assert_array_equal(
        load_engine(tiny_bundle(), engine="openvino").run(PIXELS), expected
    )
    assert not compiled
    # Another answer, another size, and another precision are other networks.
    engine = load_engine(tiny_bundle(), engine="openvino")
    assert isinstance(engine, OpenVinoEngine)
    engine.run_quantised(PIXELS)
    engine.run(PIXELS[:, :, :32])
    assert len(compiled) == 2


def test_what_openvino_cannot_load_is_compiled(folder: Path) -> None:
    expected = load_engine(tiny_bundle(), engine="openvino").run(PIXELS)
    for file in folder.iterdir():
        content = file.read_bytes()[32:]
        if content:
            file.write_bytes(hashlib.sha256(b"no network").digest() + b"no network")
    np.testing.assert_array_equal(
        load_engine(tiny_bundle(), engine="openvino").run(PIXELS), expected
    )


def test_an_engine_keeps_few_networks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "_CACHED", 2)
    engine = load_engine(tiny_bundle(), engine="openvino")
    for width in (32, 40, 48, 56):
        engine.run(PIXELS[..., :width])
    # And one file that says that the graph was checked.
    assert len(list(folder.iterdir())) == 3
