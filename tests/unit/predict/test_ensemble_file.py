"""Ensemble files: what is written is read, and a stranger's does no harm."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.errors import BundleError, RooftraceError
from rooftrace.models.bundle import read_bundle
from rooftrace.models.spec import Calibration, CalibrationData, LogisticMap
from rooftrace.predict.model_set import (
    EnsembleFile,
    members_from,
    read_ensemble,
    read_models,
    write_ensemble,
)
from rooftrace.predict.predictor import load
from tiny_models import write_tiny_bundle

CALIBRATION = Calibration(
    map=LogisticMap(kind="logistic", slope=1.0, intercept=0.5),
    fitted_on=(CalibrationData(data="a", split="val", scenes=3, objects=90, right=60),),
    ece_before=0.2, ece_after=0.1, log_loss_before=0.7, log_loss_after=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles in `models/`, of thresholds 0.4 and 0.6."""
    made = tmp_path_factory.mktemp("team")
    for name, threshold in (("a", 0.4), ("b", 0.6)):
        write_tiny_bundle(made / "models" / f"{name}.rooftrace", name=name, threshold=threshold)
    return made


def file_of(folder: Path, path: Path, **given: Any) -> EnsembleFile:
    bundles = [folder / "models" / f"{name}.rooftrace" for name in "ab"]
    digests = [read_bundle(bundle).sha256 for bundle in bundles]
    settings: dict[str, Any] = {"combine": "weighted", "weights": (0.25, 0.75), **given}
    return EnsembleFile(members=members_from(bundles, digests, path), **settings)


def test_what_is_written_is_read_and_loaded(folder: Path) -> None:
    path = folder / "teams" / "two.ensemble.json"
    written = file_of(folder, path, threshold=0.3, calibration=CALIBRATION)
    write_ensemble(path, written)
    assert [one.path for one in written.members] == [
        "../models/a.rooftrace", "../models/b.rooftrace",
    ]  # fmt: skip
    assert read_ensemble(path) == written
    loaded = load(path, precision="fp32")
    spec = loaded.bundle.spec
    assert (spec.name, spec.threshold, spec.calibration) == ("two", 0.3, CALIBRATION)
    assert loaded.bundle.source == str(path)
    assert loaded.engine.settings["combined_by"] == "weighted"  # type: ignore[attr-defined]
    recorded = loaded.engine.settings["members"]  # type: ignore[attr-defined]
    assert [(one["name"], one["weight"]) for one in recorded] == [("a", 0.25), ("b", 0.75)]
    first = path.read_bytes()
    write_ensemble(path, written)
    assert path.read_bytes() == first


def test_a_member_that_is_gone_or_another_is_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "broken.ensemble.json"
    good = file_of(folder, path)
    gone = good.members[0].model_copy(update={"path": "models/none.rooftrace"})
    write_ensemble(path, good.model_copy(update={"members": (gone, good.members[1])}))
    with pytest.raises(BundleError, match=r"names the member 'models/none\.rooftrace', but there"):
        read_models(path).ready()
    other = good.members[0].model_copy(update={"path": good.members[1].path})
    write_ensemble(path, good.model_copy(update={"members": (other, good.members[1])}))
    with pytest.raises(BundleError, match="was made with another bundle than") as caught:
        read_models(path).ready()
    assert "rooftrace fit" in caught.value.remedy
    # Where the file lies elsewhere, its members are not found.
    write_ensemble(path, good)
    (tmp_path / "moved.json").write_bytes(path.read_bytes())
    with pytest.raises(BundleError, match="there is no bundle at"):
        read_models(tmp_path / "moved.json").ready()


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"weights": None}, "weights are required for"),
        ({"combine": "average"}, "weights are required for"),
        ({"weights": [1.0]}, "1 weight was given for 2 members"),
        ({"weights": [0.0, 1.0]}, "greater than 0"),
        ({"threshold": 1.5}, "less than or equal to 1"),
        ({"schema_version": 2}, "schema_version"),
        ({"members": []}, "at least 1 item"),
        ({"member": 1}, "unknown key 'member'. Did you mean 'members'?"),
    ],
)
def test_what_does_not_fit_together_is_said(
    folder: Path, change: dict[str, Any], reported: str
) -> None:
    path = folder / "wrong.ensemble.json"
    raw = json.loads(file_of(folder, path).model_dump_json()) | change
    path.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="is not an ensemble file") as caught:
        read_ensemble(path)
    assert reported in caught.value.message
    assert "?." not in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
KEYS = ["schema_version", "kind", "members", "combine", "weights", "threshold", "calibration",
        "metrics"]  # fmt: skip


@given(st.data())
def test_a_strangers_file_raises_nothing_but_our_errors(folder: Path, data: st.DataObject) -> None:
    path = folder / "stranger.ensemble.json"
    raw = json.loads(file_of(folder, path).model_dump_json())
    for key in data.draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True)):
        if key == "members" and data.draw(st.booleans()):
            names = st.text() | st.sampled_from(["", ".", "..", "/", "/dev/zero", "\0", "a" * 5000])
            raw["members"][0]["path"] = data.draw(names)
        else:
            raw[key] = data.draw(JSON)
    path.write_text(json.dumps(raw))
    with suppress(RooftraceError):
        assert read_models(path).ready().engine.name == "ensemble"
