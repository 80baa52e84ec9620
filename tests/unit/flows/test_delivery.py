"""Results on their way to object storage; the upload is replaced by a list of names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from queue import Queue
from types import SimpleNamespace

import numpy as np
import pytest

from raster_files import write_geotiff
from rooftrace.core.errors import DataError, ExportError
from rooftrace.flows.predict import delivery as module
from rooftrace.flows.predict.delivery import Delivery
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.io.remote import ObjectAddress
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import RESULT_FILES, SceneOptions


@pytest.fixture
def open_delivery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Delivery]:
    def opened(upload: Callable[[Path, ObjectAddress], None]) -> Delivery:
        monkeypatch.setattr(module, "import_store", lambda: None)
        monkeypatch.setattr(module, "upload", upload)
        return Delivery("s3://bucket/out", tmp_path / "work")

    return opened


def test_files_of_a_density_alone_are_uploaded_with_their_image(
    open_delivery: Callable[..., Delivery], bundle: Path, tmp_path: Path
) -> None:
    data = np.full((3, 100, 90), 40, np.uint8)
    data[:, 5:25, 10:40] = 200
    image = write_geotiff(tmp_path / "a.tif", data)
    sent: Queue[str] = Queue()
    options = SceneOptions(outputs=("density",), cell_m=10)
    with open_delivery(lambda _, address: sent.put(address.key)) as delivery:
        run_predict(
            find_inputs([image]), read_models(bundle), delivery.folder, options,
            on_done=delivery.on_done,
        )  # fmt: skip
        early = {sent.get(timeout=60) for _ in range(3)}
    assert early == {f"out/a_density.{suffix}" for suffix in ("tif", "gpkg", "png")}
    assert sent.get(timeout=60) == "out/run.json"
    assert sent.empty()


def unwritable(_: Path, address: ObjectAddress) -> None:
    raise ExportError(f"{address} could not be written.", remedy="Mend it.")


def deliver(delivery: Delivery, error: Exception | None = None) -> None:
    with delivery:
        path = delivery.folder / "a_mask.tif"
        path.touch()
        scene, output = SimpleNamespace(name="a"), dict.fromkeys(RESULT_FILES)
        delivery.on_done(scene, {"output": {**output, "mask": str(path)}})
        if error is not None:
            raise error


def test_an_upload_that_fails_keeps_the_error_of_the_prediction(
    open_delivery: Callable[..., Delivery],
) -> None:
    error = DataError("a.tif is damaged.", remedy="Copy it again.")
    with pytest.raises(DataError) as caught:
        deliver(open_delivery(unwritable), error)
    assert caught.value.message == (
        "a.tif is damaged. s3://bucket/out/a_mask.tif could not be written. Mend it."
    )
    assert caught.value.remedy == "Copy it again."
    delivery = open_delivery(unwritable)
    with pytest.raises(ExportError, match="could not be written"):
        deliver(delivery)
    assert (delivery.folder / "a_mask.tif").exists()
