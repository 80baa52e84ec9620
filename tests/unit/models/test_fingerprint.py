"""A fingerprint is read back as it was taken, stays small, and a damaged one is a BundleError."""

import base64
import zlib
from pathlib import Path

import numpy as np
import pytest

from rooftrace.audit.keypoints import detect_keypoints
from rooftrace.core.errors import BundleError
from rooftrace.core.types import Scene, Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.raster import open_raster
from rooftrace.models.bundle import read_bundle, write_bundle
from rooftrace.models.fingerprint import Fingerprint, fingerprint_of
from rooftrace.models.spec import BundleSpec
from town import demo_scene_path

SPEC = BundleSpec(
    name="x", bands=("a",), mean=(0.0,), std=(1.0,), classes=("background", "building")
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    image = open_raster(demo_scene_path()).read(Window(0, 0, 768, 768)).data
    squares = [image[:, r : r + 256, c : c + 256] for r in (0, 256, 512) for c in (0, 256, 512)]
    # The fifth shows nothing.
    squares[4] = np.zeros_like(squares[4])
    return [
        Scene(str(n), ArraySource(np.ascontiguousarray(one)), gsd_m=0.3)
        for n, one in enumerate(squares)
    ]


@pytest.fixture(scope="module")
def taken(scenes: list[Scene]) -> Fingerprint:
    return fingerprint_of([("a", scenes[:2]), ("empty", []), ("b", scenes[2:])], 0.3)


def test_read_back_as_it_was_taken(scenes: list[Scene], taken: Fingerprint, tmp_path: Path) -> None:
    write_bundle(
        tmp_path / "a", SPEC.model_copy(update={"fingerprint": taken}), {"model.onnx": b""}
    )
    kept = read_bundle(tmp_path / "a").spec.fingerprint
    assert kept == taken
    assert kept is not None
    unpacked, numbers = kept.unpack("a")
    assert numbers == [0, 1, 2, 3, 5, 6, 7, 8]
    for one, number in zip(unpacked, numbers):
        seen = detect_keypoints(scenes[number], 0.6)
        assert (one.hashes == seen.hashes).all()
        assert (one.places == seen.places).all()
        assert one.whole == seen.whole
    assert kept.landmarks == sum(map(len, unpacked)) > 50
    assert (kept.share, kept.cell_px, kept.finds_px) == (1.0, 16, 72)
    assert [kept.place_of(n) for n in (0, 1, 2, 8)] == [(0, 0), (0, 1), (2, 0), (2, 6)]
    with pytest.raises(IndexError):
        kept.place_of(9)


def test_of_much_ground_a_sample_is_read(
    scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooftrace.models.fingerprint.MAX_PX", 3 * 256 * 256)
    kept = fingerprint_of([("a", scenes)], 0.3)
    assert kept.share == pytest.approx(1 / 3)
    assert 2 <= kept.scenes <= 4


@pytest.mark.parametrize(
    "update",
    [
        {"data": "?"},
        {"data": base64.b64encode(b"no deflate").decode()},
        {"data": base64.b64encode(zlib.compress(bytes(2**24), 9)).decode()},
        {"scenes": 7},
        {"landmarks": 1},
        {"sets": ()},
    ],
    ids=["base64", "deflate", "too much", "scenes", "landmarks", "sets"],
)
def test_a_damaged_one_is_refused(taken: Fingerprint, update: dict[str, object]) -> None:
    with pytest.raises(BundleError, match=r"bad\.rooftrace: the fingerprint .* cannot be read"):
        taken.model_copy(update=update).unpack("bad.rooftrace")
