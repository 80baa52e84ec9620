"""`rooftrace export --card`: a model card and a STAC item; `--to fair`: a base model for fAIr.

README.md       text with YAML front matter, https://huggingface.co/docs/hub/model-cards
item.json       STAC 1.1 item with the extension MLM, https://github.com/stac-extensions/mlm

A base model for fAIr, the mapping service of HOT, is what a pull request adds to `models/` of
https://github.com/hotosm/fAIr-models, and the weights, to be published at a URL.

Every fact comes from the bundle. A fact that it does not have is left out or called unknown.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from html import escape
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.core.report import Report
from rooftrace.core.text import plural
from rooftrace.flows.export.run import run_export
from rooftrace.io.files import write_atomically, write_json
from rooftrace.io.html import render_page
from rooftrace.io.stac_item import moment_of
from rooftrace.models.bundle import BUNDLE_SUFFIX, BUNDLED_MODELS, ModelBundle, write_bundle
from rooftrace.models.exported import read_model
from rooftrace.models.spec import BundleSpec, MeasuredMetrics

_README = "README.md"
_ITEM = "item.json"
_MLM = "https://stac-extensions.github.io/mlm/v1.3.0/schema.json"
_LIBRARY = 'library_name: "rooftrace"'
_IDENTIFIER = re.compile(r"[\w.+-]+")
"""Pattern of the identifier of a licence, such as CC-BY-4.0."""

_SEMANTIC_VERSION = re.compile(r"\d+\.\d+\.\d+")
_UNKNOWN = "unknown"
_SETTINGS = ("epochs", "samples_per_epoch", "batch_size", "crop_px", "loss", "seed")
"""Settings of a training run that the card lists."""


@dataclass(frozen=True)
class CardReport(Report):
    """Files of a model card."""

    card: Path
    item: Path
    notes: tuple[str, ...] = ()


def run_card(model: Path | None, out: Path) -> CardReport:
    """Write the model card and the STAC item of a model.

    Args:
        model: Bundle or exported file; None for the default model.
        out: Folder for the files, created if missing.

    Raises:
        BundleError: The model cannot be read.
        ConfigError: The folder holds another README.md or item.json.
        ExportError: The folder is not writable.
    """
    bundle = read_model(model)
    report = CardReport(out / _README, out / _ITEM, tuple(_missing(bundle.spec)))
    for path, mark in ((report.card, _LIBRARY), (report.item, '"mlm:name"')):
        if path.exists() and mark not in path.read_bytes().decode(errors="replace"):
            raise ConfigError(
                f"{path} exists and is not a card of rooftrace.",
                remedy="Choose another folder with -o.",
            )
    write_json(report.item, stac_item(bundle))
    write_atomically(report.card, model_card(bundle).encode())
    return report


def _missing(spec: BundleSpec) -> Iterator[str]:
    for name, value in (("licence", spec.licence), ("attribution", spec.attribution)):
        if not value:
            yield f"The bundle has no {name}; the card calls it unknown."
    if not spec.metrics:
        yield "The bundle has no measured figures, so that the card has no model-index."


def model_card(bundle: ModelBundle) -> str:
    """Return a Hugging Face model card: YAML front matter and Markdown."""
    spec, record = bundle.spec, bundle.spec.training
    names = list(dict.fromkeys(name for one in spec.metrics for name in one.values))
    protocols = list(dict.fromkeys(one.protocol for one in spec.metrics))
    ious = {one.data: one.values["iou"] for one in spec.metrics if "iou" in one.values}
    start = record.get("start")
    text = render_page(
        "card.md",
        # Values of the front matter are JSON, which is YAML, too.
        {"json": partial(json.dumps, ensure_ascii=False), "plain": _plain, "row": _row},
        front=_front_matter(spec),
        spec=spec,
        summary=_summary(spec),
        is_click=spec.takes_clicks,
        file=Path(bundle.source).name,
        contract=list(_contract(spec)),
        names=names,
        protocols=protocols,
        figures=[
            (
                one.data, one.split,
                *(f"{one.values[name]:.3f}" if name in one.values else "" for name in names),
                str(protocols.index(one.protocol) + 1),
            )
            for one in spec.metrics
        ],
        ious=sorted(ious.items(), key=itemgetter(1)),
        sets=_training_sets(spec),
        settings=[(key, str(value)) for key, value in _settings(spec).items()],
        start=start.get("model") if isinstance(start, Mapping) else None,
        is_imported=isinstance(record.get("imported"), Mapping),
        parts=list(_file(bundle)),
    )  # fmt: skip
    return f"{text.rstrip()}\n"


def _settings(spec: BundleSpec) -> dict[str, Any]:
    return {key: spec.training[key] for key in _SETTINGS if spec.training.get(key) is not None}


def _front_matter(spec: BundleSpec) -> dict[str, Any]:
    front: dict[str, Any] = {
        "library_name": "rooftrace",
        "pipeline_tag": "image-segmentation",
        "tags": ["rooftrace", "remote-sensing", "semantic-segmentation", "onnx"],
    }
    if spec.licence:
        front["license"] = _licence_id(spec.licence).lower()
        if front["license"] == "other":
            front["license_link"] = f"{_README}#licence"
    results = [_result(one) for one in spec.metrics if one.values]
    if results:
        front["model-index"] = [{"name": spec.name, "results": results}]
    return front


def _licence_id(licence: str) -> str:
    """Return a licence that is an identifier; `other` for a text, which may have conditions."""
    return licence if _IDENTIFIER.fullmatch(licence) else "other"


def _result(one: MeasuredMetrics) -> dict[str, Any]:
    """Return an entry of a model-index."""
    return {
        "task": {"type": "image-segmentation"},
        "dataset": {
            "type": one.data, "name": one.data, "split": one.split,
            "args": {"protocol": one.protocol},
        },
        "metrics": [{"type": name, "value": value} for name, value in one.values.items()],
    }  # fmt: skip


def _summary(spec: BundleSpec) -> str:
    target = " and ".join(spec.classes[1:]) if len(spec.classes) < 4 else ", ".join(spec.classes)
    text = f"Segments overhead images: {_plain(target)} against {_plain(spec.classes[0])}."
    if spec.takes_clicks:
        text = f"Outlines the {spec.classes[spec.building_class]} on which a person clicks."
    network = _network(spec)
    return text if network is None else f"{text} The network is {network}."


def _network(spec: BundleSpec) -> str | None:
    """Return the architecture with its encoder, as the training record names them."""
    model = spec.training.get("model")
    if not isinstance(model, Mapping) or not model.get("architecture"):
        return None
    encoder = model.get("encoder")
    return (
        f"{model['architecture']} with the encoder {encoder}"
        if encoder
        else str(model["architecture"])
    )


def _file_name(bundle: ModelBundle) -> str:
    """Return the name of the model's file; a bundled model without one gets its usual name."""
    name = Path(bundle.source).name
    return f"{name}{BUNDLE_SUFFIX}" if name in BUNDLED_MODELS else name


def _contract(spec: BundleSpec) -> Iterator[tuple[str, str]]:
    yield "Bands", ", ".join(spec.bands)
    yield "Pixel values", f"{spec.dtype}, as in the image; normalisation is inside the graph"
    gsd = "pixel by pixel" if spec.gsd_m is None else f"{spec.gsd_text}; images are resampled to it"
    yield "Metres per pixel", gsd
    yield "Height and width in pixels", _size(spec)
    if spec.tta is not None:
        yield "Mirrored tiles", f"`{spec.tta}`, averaged by rooftrace; the graph runs one tile"
    yield "Classes", ", ".join(spec.classes)
    yield "Traced as polygons", spec.classes[spec.building_class]
    if spec.is_binary:
        yield "Threshold", f"{spec.threshold:g}"
    if spec.calibration is not None:
        yield "Scores", f"calibrated on {', '.join(one.data for one in spec.calibration.fitted_on)}"


def _size(spec: BundleSpec) -> str:
    """Return the height and width that the graph accepts, and how rooftrace fills other ones."""
    if spec.input_px is not None:
        return f"{spec.input_px}"
    return f"multiples of {spec.input_multiple_px}; the rest is mirrored to the right and below"


def _training_sets(spec: BundleSpec) -> list[tuple[str, str]]:
    """Return the name of each training set, with its share of the samples or its scenes."""
    data = spec.training.get("data")
    train = data.get("train") if isinstance(data, Mapping) else None
    sets = []
    for one in train if isinstance(train, Sequence) else ():
        if isinstance(one, Mapping) and (name := one.get("name") or one.get("path")):
            share = one.get("share")
            # The folders above it are those of the machine that trained.
            name = Path(str(name)).name + (f" {one['part']}" if one.get("part") else "")
            sets.append((name, "" if share is None else f"{share:g} of the samples"))
    if not sets and spec.fingerprint is not None:
        sets = [(one.name, plural(one.scenes, "scene")) for one in spec.fingerprint.sets]
    return sets


def _file(bundle: ModelBundle) -> Iterator[tuple[str, str]]:
    spec = bundle.spec
    yield "Hash of the contract", f"`{bundle.sha256}`"
    if spec.created:
        yield "Created", spec.created
    for name, part in spec.parts.items():
        yield f"`{name}`", f"{part.size:,} bytes, sha256 `{part.sha256}`"
    for variant in spec.variants:
        yield f"Variant for {variant.engine}", variant.precision
    if spec.versions:
        yield "Made with", ", ".join(f"{name} {version}" for name, version in spec.versions.items())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(one).replace("|", "\\|") for one in cells) + " |"


def _plain(text: str) -> str:
    """Return text in one line, in which nothing is HTML, a link or emphasis."""
    return re.sub(r"([*\[])", r"\\\1", escape(" ".join(text.split()), quote=False))


def stac_item(bundle: ModelBundle) -> dict[str, Any]:
    """Return the STAC item of a model, with the extension MLM 1.3.

    A model has no place, so that the geometry is null. Without a date of the export, the period is
    unlimited, as in the examples of the extension.
    """
    spec = bundle.spec
    period = {"start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}
    times: dict[str, Any] = {"datetime": None, **period}
    if (created := moment_of(spec.created)) is not None:
        moment = created.astimezone(UTC).isoformat().replace("+00:00", "Z")
        times = {"datetime": moment, "created": moment}
    side = spec.input_px or -1
    order = ["batch", "channel", "height", "width"]
    name, bands = _mlm_name(spec.name), [{"name": band} for band in spec.bands]
    properties: dict[str, Any] = {
        **times,
        "title": spec.name,
        "description": _summary(spec),
        "license": _licence_id(spec.licence) if spec.licence else "other",
        "bands": bands,
        "mlm:name": name,
        "mlm:architecture": _network(spec) or _UNKNOWN,
        "mlm:framework": "ONNX",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:input": [
            {
                "name": "image",
                "description": f"Pixel values as in the image, of the range of {spec.dtype}; "
                f"normalisation is inside the graph. Height and width are {_size(spec)}.",
                "bands": list(spec.bands),
                "input": {
                    "shape": [-1, len(spec.bands), side, side], "dim_order": order,
                    "data_type": "float32",
                },
                "value_scaling": None,
                "resize_type": None,
                "pre_processing_function": None,
            }
        ],
        "mlm:output": [
            {
                "name": output,
                "tasks": ["semantic-segmentation"],
                "result": {
                    "shape": [-1, spec.outputs, side, side], "dim_order": order,
                    "data_type": "float32",
                },
                "classification:classes": list(_classes(spec)),
            }
            for output in ("probabilities", "coarse")[: 1 + spec.is_refined]
        ],
    }  # fmt: skip
    if spec.gsd_m is not None:
        properties["gsd"] = spec.gsd_m
    version = spec.versions.get("onnx", "")
    if _SEMANTIC_VERSION.fullmatch(version):
        properties["mlm:framework_version"] = version
    if settings := _settings(spec):
        properties["mlm:hyperparameters"] = settings
    if spec.attribution:
        properties["attribution"] = spec.attribution
    if spec.metrics:
        properties["rooftrace:metrics"] = [one.model_dump() for one in spec.metrics]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_MLM],
        "id": name.replace(" ", "-"),
        "geometry": None,
        "properties": properties,
        "links": [{"rel": "about", "href": f"./{_README}", "type": "text/markdown"}],
        "assets": {
            "model": {
                "href": f"./{_file_name(bundle)}",
                "type": "application/octet-stream",
                "title": f"Model file of rooftrace, sha256 of its contract {bundle.sha256}",
                "roles": ["mlm:model"],
                # STAC allows bands of an item if an asset has some, and MLM asks for those.
                "bands": bands,
            }
        },
    }


def _mlm_name(name: str) -> str:
    """Return a name as MLM writes it: letters, digits, blanks, dots, dashes and underscores."""
    plain = re.sub(r"[^a-zA-Z0-9_.\s-]+", "-", name).strip(" .-_")
    return plain if re.fullmatch(r"[a-zA-Z][\w.\s-]+[a-zA-Z0-9]", plain) else f"model-{plain or 0}"


def _classes(spec: BundleSpec) -> Iterator[dict[str, Any]]:
    for value, name in enumerate(spec.classes):
        one = {
            "value": value,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", name) or f"class-{value}",
            "description": name,
        }
        if spec.colours:
            one["color_hint"] = spec.colours[value].removeprefix("#").upper()
        yield one


LICENCES = ("AGPL-3.0-only", "MIT", "Apache-2.0", "BSD-3-Clause")
"""Licences that fAIr accepts."""

_TEMPLATES = {
    "stac-item.json": "item", "pipeline.py": "pipeline", "Dockerfile": "Dockerfile",
    "tests/conftest.py": "conftest", "tests/test_steps.py": "test_steps",
}  # fmt: skip

_EQUATOR_M = 156_543.03
"""Metres per pixel of map tiles at zoom level 0."""

_ANY_TIME = "2026-01-01T00:00:00Z"
"""Time of a bundle that has none; fAIr asks for one."""


@dataclass(frozen=True)
class FairReport(Report):
    """Folder of a base model."""

    folder: Path
    notes: tuple[str, ...]


def run_fair(model: Path | None, out: Path, url: str) -> FairReport:
    """Write the folder of a base model.

    Args:
        model: Bundle; None for the default model.
        out: Folder to write, whose name becomes that of a Python package.
        url: URL of the folder at which the files of `weights/` will be.

    Raises:
        ConfigError: fAIr would refuse the model, the name of the folder or the URL.
    """
    bundle = read_model(model)
    spec, package = bundle.spec, out.resolve().name
    licence = spec.licence.partition(";")[0].strip()
    for message, remedy in _problems(bundle, package, url, licence):
        raise ConfigError(message, remedy=remedy)
    with MissingExtraError.on_import("train", "rooftrace export --to fair", "torch"):
        import torch
    card = stac_item(bundle)["properties"]
    # fAIr's cache knows the path of a URL without its host: a usual name would meet another model.
    stem = f"{package}-{bundle.sha256[:8]}"
    values = {
        "card": card,
        "classes": card["mlm:output"][0]["classification:classes"],
        "licence": licence,
        "moment": card["datetime"] or _ANY_TIME,
        "outputs": spec.outputs,
        "stem": stem,
        "package": package,
        "threshold": spec.threshold,
        "title": re.sub(r"[^\w .-]+", " ", spec.name),
        "torch": torch.__version__.partition("+")[0],
        "url": url.rstrip("/"),
        "zoom": 19 if spec.gsd_m is None else round(math.log2(_EQUATOR_M / spec.gsd_m)),
    }
    as_json = {"json": partial(json.dumps, ensure_ascii=False)}
    for name, template in _TEMPLATES.items():
        text = render_page(f"fair/{template}.txt", as_json, **values)
        write_atomically(out / name, f"{text.rstrip()}\n".encode())
    write_atomically(out / "README.md", model_card(bundle).encode())
    weights = out / "weights"
    with TemporaryDirectory() as folder:
        packed = Path(folder, "model.rooftrace")
        write_bundle(packed, spec, bundle.parts)
        data = torch.from_numpy(np.frombuffer(packed.read_bytes(), np.uint8).copy())
    checkpoint = BytesIO()
    torch.save({"rooftrace": data}, checkpoint)
    write_atomically(weights / f"{stem}.pt", checkpoint.getbuffer())
    run_export(model, "onnx", weights / f"{stem}.onnx")
    note = f"publish the files of {weights} at {url}, and leave them out of the pull request"
    return FairReport(out, (note,))


def _problems(
    bundle: ModelBundle, package: str, url: str, licence: str
) -> Iterator[tuple[str, str]]:
    """Yield why fAIr would refuse a model, with the remedy."""
    spec = bundle.spec
    if not re.fullmatch(r"[a-z][a-z0-9_]+", package):
        yield (
            f"The folder is named {package!r}; expected the name of a Python package.",
            "Use small letters, digits and underscores: -o models/my_buildings.",
        )
    if not url.startswith("https://"):
        yield (
            f"--url received {url!r}; expected the https:// URL of a folder.",
            "Give the URL at which you will publish the weights.",
        )
    if spec.bands != ("red", "green", "blue") or spec.takes_clicks or not spec.is_binary:
        received = f"{plural(len(spec.bands), 'band')} and {len(spec.classes)} classes"
        yield (
            f"{bundle.source} has {received}; expected RGB images, and buildings with background.",
            "Export such a model.",
        )
    if licence not in LICENCES:
        yield (
            f"{bundle.source} has the licence {licence or 'unknown'!r}, which fAIr refuses.",
            f"fAIr accepts {', '.join(LICENCES[:-1])} and {LICENCES[-1]}.",
        )
