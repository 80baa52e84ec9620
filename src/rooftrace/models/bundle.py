"""A trained model on disk: one `.rooftrace` file, a zip that is safe to open.

    bundle.json           the contract (`models.spec.BundleSpec`) with a sha256 of every part
    model.onnx            the graph, including normalisation and activation
    variants/…            optional, the same model for one engine and precision
    weights.safetensors   optional, to continue training from

Nothing in it is executed, and nothing is unpacked to disk. Parts are read into memory after their
names, sizes and hashes have been checked, and engines load them from there. A graph that refers to
other files fails at its first use, which is in an empty folder: see `check_first_use`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from pydantic import ValidationError

from rooftrace.core.config import invalid_values
from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.core.text import list_first, plain_number, reason_of
from rooftrace.io.files import replacing
from rooftrace.models.spec import SCHEMA_VERSION, BundlePart, BundleSpec, Output

BUNDLED_MODELS = ("default", "accurate")
"""Names that stand for the bundled models in place of a path. Both have one network; `accurate`
runs it at a finer scale and on mirrored copies of each tile: more accurate, and slower."""

EDITION_FIELDS = {
    "name", "gsd_m", "finest_gsd_m", "interpolated_gsd_m", "threshold", "tta", "calibration",
    "metrics",
}  # fmt: skip
"""Fields of the contract in which `accurate` differs from the default model; its file has these."""

_RUN_BUNDLES = ("refined.rooftrace", "best_iou.rooftrace", "best_loss.rooftrace")
"""Bundles of a training run: with its refiner, and of its best epochs. The first of those that are
there stands for the run."""

SPEC_NAME = "bundle.json"
GRAPH_NAME = "model.onnx"
WEIGHTS_NAME = "weights.safetensors"
_PART_NAME = re.compile(r"model\.onnx|weights\.safetensors|variants/[A-Za-z0-9_-][A-Za-z0-9_.-]*")

MAX_SPEC_BYTES = 4 * 2**20
MAX_PART_BYTES = 2 * 2**30
"""Maximum size of a part; an ONNX file cannot hold more."""

BUNDLE_SUFFIX = ".rooftrace"
RAW_WEIGHTS = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".safetensors"})
"""Endings of files that hold weights without a contract, or a pickle."""

_REMEDY = "Get the file again from where it was trained, or export it again with rooftrace train."


@dataclass(frozen=True, repr=False)
class ModelBundle:
    """A bundle in memory: its contract and its checked parts.

    Args:
        spec: The contract.
        parts: Content of the parts by name, without `bundle.json`.
        source: File that it was read from, or the name of a bundled model without a file of its
            own; `read_model` reads it again.
        members: Bundles of an ensemble that answers as one model; empty for a single model.
        is_trusted: Whether engines load the graph without a first use in a child process, see
            `engines.select.check_first_use`: it is part of this installation.
    """

    spec: BundleSpec
    parts: Mapping[str, bytes]
    source: str
    members: tuple[ModelBundle, ...] = ()
    is_trusted: bool = False

    def __repr__(self) -> str:
        return f"<ModelBundle {self.described}>"

    @property
    def described(self) -> str:
        """Name of the model, its resolution and its classes, for people."""
        gsd_m, classes = self.spec.gsd_m, list_first(self.spec.classes, 8)
        scale = "any scale" if gsd_m is None else f"{plain_number(gsd_m)} m per pixel"
        return f"{self.spec.name!r}: {scale}, {classes}"

    def part(self, name: str) -> bytes:
        """Return one part; BundleError if the bundle has none with this name."""
        if name not in self.parts:
            raise self.lacks(name)
        return self.parts[name]

    def lacks(self, name: str) -> BundleError:
        """Return the error for a part that is missing."""
        return BundleError(
            f"The bundle {self.source} has no part {name!r}; it has {sorted(self.parts)}.",
            remedy=_REMEDY,
        )

    def for_output(self, output: Output) -> ModelBundle:
        """Return the bundle with the contract of one of its outputs, which has its own threshold.

        Raises:
            ConfigError: `coarse` is asked of a model that is not refined.
        """
        if output == "probabilities":
            return self
        if self.spec.coarse_threshold is None:
            raise ConfigError(
                f"The bundle {self.source} has no output {output!r}: its model is not refined.",
                remedy="Leave out the output.",
            )
        # The calibration is for the scores of the other output.
        update = {"threshold": self.spec.coarse_threshold, "calibration": None}
        return replace(self, spec=self.spec.model_copy(update=update))

    @property
    def version(self) -> str:
        """Name of the model with the first eight digits of its hash, as people see it."""
        return f"{self.spec.name}-{self.sha256[:8]}"

    @cached_property
    def sha256(self) -> str:
        """Hash of the contract with the hashes of all parts, for records of the model that was
        used.
        """
        # Without defaults, so that a field that is new in rooftrace changes no older bundle's hash.
        text = self.spec.model_dump_json(exclude_defaults=True)
        return hashlib.sha256(text.encode()).hexdigest()


def write_bundle(path: Path, spec: BundleSpec, parts: Mapping[str, bytes]) -> ModelBundle:
    """Write a bundle, with `spec.parts` filled in from `parts`.

    The bytes depend only on the content (the zip has fixed dates). The file appears under its name
    when it is complete.

    Raises:
        ExportError: The folder cannot be written to.
        BundleError: A part has a name that is not allowed, or the part of a variant is missing.
    """
    for name in parts:
        if not _PART_NAME.fullmatch(name):
            raise BundleError(f"A bundle cannot hold a part named {name!r}.", remedy=_REMEDY)
    hashed = {
        name: BundlePart(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in sorted(parts.items())
    }
    spec = spec.model_copy(update={"parts": hashed})
    bundle = ModelBundle(spec, dict(parts), str(path))
    _check_complete(bundle)
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        text = spec.model_dump_json(indent=1).encode()
        for name, data in [(SPEC_NAME, text), *sorted(parts.items())]:
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data, compresslevel=6)
    return bundle


def check_bundle_path(out: Path) -> None:
    """Check the name of a bundle that will be written.

    Raises:
        ConfigError: It does not end in .rooftrace, so that no command would take it for a bundle.
    """
    if out.suffix.lower() != BUNDLE_SUFFIX:
        raise ConfigError(
            f"The output is {out}; expected a name that ends with {BUNDLE_SUFFIX}.",
            remedy=f"Use -o {out.stem.strip('.') or 'model'}{BUNDLE_SUFFIX}.",
        )


def bundle_file(path: Path) -> Path:
    """Return the file of a model: the path itself, or the bundle in the folder of a run.

    The refined model stands for a training run, otherwise the best epoch by IoU; a folder with one
    bundle stands for that.

    Raises:
        BundleError: The folder holds no bundle, or several of which none stands for the others.
    """
    if not path.is_dir():
        return path
    found = bundles_in(path)
    if not found:
        runs = [one for one in sorted(path.iterdir()) if bundles_in(one)]
        raise BundleError(
            f"The folder {path} was given as a model, but contains no .rooftrace file.",
            remedy=f"Give one of the runs in it: {list_first(runs, 8)}" if runs
            else "Give the folder of a finished training run, or the path of a .rooftrace file. A "
            "training that was stopped continues with --resume.",
        )  # fmt: skip
    of_run = [path / name for name in _RUN_BUNDLES if path / name in found]
    if len(found) > max(len(of_run), 1):
        raise BundleError(
            f"The folder {path} was given as a model, but contains {len(found)} bundles.",
            remedy=f"Give one of them: {list_first(found, 8)}",
        )
    return next(iter(of_run), found[0])


def is_run_without_bundle(path: Path) -> bool:
    """Return whether a path is an empty folder, or that of runs or of a run that was stopped."""
    if not path.is_dir() or bundles_in(path):
        return False
    inside = [*path.iterdir()]
    is_run = not {one.name for one in inside}.isdisjoint(("checkpoints", "config.json", "fold1"))
    return not inside or is_run or any(map(bundles_in, inside))


def bundles_in(folder: Path) -> list[Path]:
    """Return the bundles directly in a folder, sorted by name; none in what is no folder.

    What a run was writing when it was killed is hidden.
    """
    return sorted(p for p in folder.glob(f"[!.]*{BUNDLE_SUFFIX}") if p.is_file())


def read_bundle(path: Path, *, is_installed: bool = False) -> ModelBundle:
    """Open a bundle and check it before anything is used.

    Args:
        path: The file, or the folder of a run, see `bundle_file`.
        is_installed: True for a file of this installation, which does not change: its parts are
            read and checked when they are asked for, since most commands need one of them.

    Raises:
        BundleError: The file is not a zip, or is truncated, modified (a hash differs) or oversized;
            or its schema is unknown; or a part is missing or surplus. The message says which.
    """
    try:
        path = bundle_file(path)
        if not path.is_file():
            raise BundleError(
                f"There is no bundle at {path}.",
                remedy="Give the path of a .rooftrace file, or the folder of a training run.",
            )
        with zipfile.ZipFile(path) as archive:
            spec = _read_spec(archive, path)
            _check_listed(archive, spec, path)
            parts: Mapping[str, bytes] = (
                _InstalledParts(path, spec)
                if is_installed
                else {name: _read_part(archive, name, spec, path) for name in spec.parts}
            )
    except BundleError:
        raise
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    bundle = ModelBundle(spec, parts, str(path))
    _check_complete(bundle)
    return bundle


def bundled_model(name: str = "default") -> ModelBundle:
    """Return one of the bundled models.

    Args:
        name: One of `BUNDLED_MODELS`.
    """
    bundle = _bundled("default.rooftrace")
    if name == "default":
        return bundle
    edition = _asset(f"{name}.json").read_bytes()
    try:
        spec = BundleSpec.model_validate(bundle.spec.model_dump() | json.loads(edition))
    except ValidationError as error:
        raise _damaged(name, invalid_values(error, BundleSpec, 1)) from error
    except (ValueError, TypeError) as error:
        raise _damaged(name, f"{reason_of(error)}.") from error
    return replace(bundle, spec=spec, source=name)


def click_bundle() -> ModelBundle:
    """Return the bundled network for clicks."""
    return _bundled("clicks.rooftrace")


def _bundled(name: str) -> ModelBundle:
    asset = _asset(name)
    with resources.as_file(asset) as path:
        bundle = read_bundle(path, is_installed=path == asset)
    return replace(bundle, is_trusted=True)


def _asset(name: str) -> Traversable:
    found = resources.files("rooftrace") / "assets" / name
    if not found.is_file():
        raise BundleError(
            f"This installation of rooftrace does not contain {name}, a bundled model.",
            remedy="Give a .rooftrace file with -m, or install rooftrace from its wheel.",
        )
    return found


def _damaged(name: str, how: str) -> BundleError:
    return BundleError(
        f"The file {name}.json of this installation of rooftrace is damaged: {how}",
        remedy="Install rooftrace from its wheel again.",
    )


def _read_spec(archive: zipfile.ZipFile, path: Path) -> BundleSpec:
    names = [info.filename for info in archive.infolist()]
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled:
        raise BundleError(f"{path} holds {doubled} more than once.", remedy=_REMEDY)
    if SPEC_NAME not in names:
        raise BundleError(
            f"{path} is not a bundle but a zip without {SPEC_NAME}; it holds {names[:8]}.",
            remedy=_REMEDY,
        )
    text = _read_limited(archive, SPEC_NAME, MAX_SPEC_BYTES, path)
    try:
        return BundleSpec.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(
            f"{path}: {SPEC_NAME} does not follow schema {SCHEMA_VERSION}: "
            f"{invalid_values(error, BundleSpec, 1)}",
            remedy="Update rooftrace if the bundle is newer than it; else get the file again.",
        ) from error


_UNREADABLE = (
    zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError,
    zlib.error,
)  # fmt: skip
"""Errors of Python for a damaged zip."""


def _unreadable(path: Path, error: Exception) -> BundleError:
    remedy = _REMEDY
    if path.suffix.lower() in RAW_WEIGHTS:
        given = shlex.quote(str(path))
        remedy = f"Make a bundle of the weights first: rooftrace import {given} -o model.rooftrace"
    return BundleError(
        f"{path} cannot be read as a bundle ({reason_of(error)}); "
        "expected a complete zip as rooftrace train writes it.",
        remedy=remedy,
    )


@dataclass(frozen=True, eq=False)
class _InstalledParts(Mapping[str, bytes]):
    """Parts of a bundle of this installation; a copy of them is plain."""

    _path: Path
    _spec: BundleSpec
    _read: dict[str, bytes] = field(default_factory=dict)

    def __getitem__(self, name: str) -> bytes:
        if name not in self._spec.parts:
            raise KeyError(name)
        if name not in self._read:
            try:
                with zipfile.ZipFile(self._path) as archive:
                    self._read[name] = _read_part(archive, name, self._spec, self._path)
            except _UNREADABLE as error:
                raise _unreadable(self._path, error) from error
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._spec.parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._spec.parts)

    def __len__(self) -> int:
        return len(self._spec.parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Another machine may have no such file.
        return dict, (dict(self),)


def _check_listed(archive: zipfile.ZipFile, spec: BundleSpec, path: Path) -> None:
    """Check the names and sizes of the parts."""
    found = {info.filename for info in archive.infolist()} - {SPEC_NAME}
    if found != set(spec.parts):
        missing, surplus = sorted(set(spec.parts) - found), sorted(found - set(spec.parts))
        raise BundleError(
            f"{path} does not hold the parts that its {SPEC_NAME} lists: "
            f"missing {missing}, surplus {surplus[:8]}.",
            remedy=_REMEDY,
        )
    for name, expected in spec.parts.items():
        if not _PART_NAME.fullmatch(name):
            raise BundleError(f"{path} holds a part named {name!r}.", remedy=_REMEDY)
        if expected.size > MAX_PART_BYTES:
            raise BundleError(
                f"{path}: the part {name} is listed with {expected.size} bytes; "
                f"at most {MAX_PART_BYTES} are read.",
                remedy=_REMEDY,
            )


def _read_part(archive: zipfile.ZipFile, name: str, spec: BundleSpec, path: Path) -> bytes:
    expected = spec.parts[name]
    data = _read_limited(archive, name, expected.size, path)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != expected.size or digest != expected.sha256:
        raise BundleError(
            f"{path}: the part {name} has changed since it was written: {len(data)} bytes with "
            f"sha256 {digest[:12]}…, expected {expected.size} with {expected.sha256[:12]}….",
            remedy=_REMEDY,
        )
    return data


def _read_limited(archive: zipfile.ZipFile, name: str, limit: int, path: Path) -> bytes:
    # Other compression methods unpack without a limit, and raise other errors.
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(
            f"{path}: {name} is compressed by a method that bundles do not use; expected deflate.",
            remedy=_REMEDY,
        )
    # A zip may announce one size and unpack to another: only the announced size is unpacked.
    with archive.open(name) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise BundleError(
            f"{path}: {name} unpacks to more than the allowed {limit} bytes.", remedy=_REMEDY
        )
    return data


def _check_complete(bundle: ModelBundle) -> None:
    for name in (GRAPH_NAME, *(name for variant in bundle.spec.variants for name in variant.files)):
        if name not in bundle.parts:
            raise bundle.lacks(name)
