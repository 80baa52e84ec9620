"""Implement `rooftrace label`: push images and predictions to Label Studio, pull labels back."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path
from urllib.parse import quote

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError, LayoutError
from rooftrace.core.report import Report
from rooftrace.core.text import merge_notes, plural
from rooftrace.core.types import Progress
from rooftrace.io.files import check_exists, write_atomically
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.folders import CARD
from rooftrace.labels.image_files import image_name, images_folder
from rooftrace.labels.kinds import open_source
from rooftrace.labels.label_files import FILE_KEY, ID_KEY, ImageFinder, image_key, upload_path
from rooftrace.labels.labelstudio import (
    browser_image,
    is_shown_by_browsers,
    label_config,
    predictions,
    scene_data,
)
from rooftrace.labels.labelstudio_client import (
    LabelStudio,
    find_project,
    polygon_tool,
    project_number,
)
from rooftrace.labels.labelstudio_export import LabelTask, is_export, read_tasks
from rooftrace.labels.source import SceneEntry
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import load

_TASKS = "tasks.json"
_LONGEST_NAME = 60
"""Maximum length of an image name in characters.

The server keeps names of up to a hundred characters, including its own folder and digits.
"""


@dataclass(frozen=True)
class PushReport(Report):
    """Result of a push."""

    project: int
    url: str
    created: bool
    pushed: tuple[str, ...]
    skipped: tuple[str, ...]
    buildings: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PullReport(Report):
    """Result of a pull."""

    path: str
    tasks: int
    annotated: int
    downloaded: int
    notes: tuple[str, ...] = ()


def run_push(
    data: SourceConfig,
    server: LabelStudio,
    project: str,
    *,
    ids: Sequence[str] | None = None,
    bundle: Path | None = None,
    local_files_root: Path | None = None,
    threshold: float | None = None,
    images: SceneOptions = AS_FOUND,
    progress: Progress | None = None,
) -> PushReport:
    """Create a task with predictions for each image of `data` that the project does not have.

    Args:
        data: Data of any kind; its labels are not pushed.
        project: Number or title of the project; if no project has the title, one is created.
        ids: Ids of the images to push, in this order; default all.
        bundle: Model; default the one that comes with rooftrace.
        local_files_root: The server's document root, if it is on this machine or mounted under the
            same path. The server then shows the images from there, and they are not uploaded.
        threshold: Threshold on the building's probability; default the model's own.
        images: Bands, stretch and scale with which images are read.

    Raises:
        ConfigError: The server, the token or the project is wrong, no label of the project is the
            model's building class, or an image is not below the root.
        DataError: An image or the server causes an error.
        BundleError, PredictError: The model causes an error.
    """
    source = open_source(data).with_unlabelled()
    if ids is not None:
        entries = {entry.id: entry for entry in source.entries}
        source = replace(source, entries=tuple(entries[one] for one in ids))
    root = None if local_files_root is None else local_files_root.resolve()
    served = None if root is None else _served_folder(source.entries, root)
    predictor = load(bundle)
    spec = predictor.bundle.spec
    project_found = find_project(server, project)
    created = project_found is None
    if project_found is None:
        project_found = server.create_project(project, label_config(spec.classes, unknown=False))
    tool = polygon_tool(project_found, spec.classes[spec.building_class])
    number = project_number(project_found)
    if served is not None:
        server.serve_folder(number, served)
    known = _ids(server, number)
    new = tuple(entry for entry in source.entries if entry.id not in known)
    top = expand_path(data.path, Path(), key="path").resolve()
    buildings = 0
    notes: list[str] = []
    names: set[str] = set()
    for done, (entry, scene) in enumerate(zip(new, replace(source, entries=new))):
        options = images.model_copy(update={"gsd_m": scene.stated_gsd_m, "threshold": threshold})
        made = predictor.predict(scene.image, options=options)
        notes.extend(made.result.summary.notes)
        names.add(scene.image.name)
        footprints = made.outlines.of_class(spec.building_class)
        buildings += len(footprints)
        if root is None or entry.image is None:
            name = image_name(entry.id)[-_LONGEST_NAME:]
            picture = browser_image(scene.image, entry.image, name, images.bands)
            reference = server.upload(number, picture.name, picture.content, picture.media_type)
        else:
            below = entry.image.resolve().relative_to(root).as_posix()
            reference = f"/data/local-files/?d={quote(below)}"
        task_data = scene_data(entry, scene, reference, key=tool.key, georeferenced=False)
        if entry.image is not None:
            # The path below the data, or the name of an image that lies elsewhere.
            real, name = entry.image.resolve(), entry.image.name
            is_below = top in real.parents
            task_data[FILE_KEY] = real.relative_to(top).as_posix() if is_below else name
        version = predictor.bundle.version
        found = predictions(footprints, made.mask.grid, tool.label, version, tool.control)
        server.import_tasks(number, [{"data": task_data, "predictions": found}])
        if progress is not None:
            progress(done + 1, len(new))
    return PushReport(
        project=number,
        url=f"{server.url}/projects/{number}",
        created=created,
        pushed=tuple(entry.id for entry in new),
        skipped=tuple(entry.id for entry in source.entries if entry.id in known),
        buildings=buildings,
        notes=(*source.notes, *merge_notes(notes, names)),
    )


def run_pull(
    server: LabelStudio,
    project: str,
    out: Path,
    *,
    images: Path | None = None,
    progress: Progress | None = None,
) -> PullReport:
    """Fetch all tasks of a project with their annotations, and the missing uploaded images.

    Args:
        project: Number or title of the project.
        out: A `.json` file, or a folder for `tasks.json` and a card that makes the folder DATA.
            Images are saved in the folder `…_images` beside the file. Only the results of an
            earlier pull are replaced; its card stays.
        images: Folder of images that already exist, such as the folder that was pushed.

    Raises:
        ConfigError: The server, the token or the project is wrong; or a file of other data has the
            name of a result.
        DataError: The server causes an error.
        ExportError: A file cannot be written.
    """
    as_file = out.suffix.lower() == ".json"
    path = out if as_file else out / _TASKS
    _check_is_export(path)
    if not as_file:
        _check_card(out / CARD)
    found = find_project(server, project)
    if found is None:
        raise ConfigError(
            f"{server.url} has no project called {project!r}.",
            remedy="Check --project; the number is part of the URL of the project's page.",
        )
    if images is not None:
        check_exists(images)
    finder = ImageFinder.beside(path, images)
    number = project_number(found)
    exported = f"the export of project {number} of {server.url}"
    tasks, _ = server.export(number, path, lambda file: read_tasks(file, exported))
    downloaded = 0
    absent: list[str] = []
    for done, task in enumerate(tasks):
        reference = task.data[image_key(task.data, task.where)]
        try:
            finder.find(reference, task.where, pushed_from=str(task.data.get(FILE_KEY, "")))
        except LayoutError:
            if _download(server, reference, images_folder(path), task):
                downloaded += 1
            else:
                absent.append(str(reference))
        if progress is not None:
            progress(done + 1, len(tasks))
    notes = []
    if absent:
        notes.append(
            f"{plural(len(absent), 'image was', 'images were')} neither uploaded to the server nor "
            f"found, such as {absent[0]}; give their folder with --images."
        )
    if images is not None and (as_file or (out / CARD).is_file()):
        notes.append(f"Read {out} with --images {images}.")
    if not as_file:
        _write_card(out / CARD, images)
    return PullReport(
        path=str(out),
        tasks=len(tasks),
        annotated=sum(bool(task.annotations) for task in tasks),
        downloaded=downloaded,
        notes=tuple(notes),
    )


def pushed_ids(server: LabelStudio, project: str) -> frozenset[str]:
    """Return the ids of the images that were pushed to a project; none if it does not exist.

    Raises:
        ConfigError: The server, the token or the project is wrong.
        DataError: The server causes an error.
    """
    found = find_project(server, project)
    return frozenset() if found is None else _ids(server, project_number(found))


def _ids(server: LabelStudio, number: int) -> frozenset[str]:
    return frozenset(str(one[ID_KEY]) for one in server.task_data(number) if ID_KEY in one)


def _served_folder(entries: Sequence[SceneEntry], root: Path) -> Path:
    """Return the folder below the server's document root that contains all images."""
    files = [entry.image.resolve() for entry in entries if entry.image is not None]
    for file in files:
        if root not in file.parents:
            raise ConfigError(
                f"{file} is not below --local-files-root {root}.",
                remedy="Give the document root of the server, or leave the option out: then the "
                "images are uploaded.",
            )
        if is_shown_by_browsers(file) is None:
            raise ConfigError(
                f"{file} is not an upright PNG or JPEG; browsers show no other image unchanged.",
                remedy="Leave --local-files-root out: then a PNG of the image is uploaded.",
            )
    folder = Path(commonpath([file.parent for file in files])) if files else root
    if folder == root:
        raise ConfigError(
            f"The images lie in --local-files-root {root} itself; Label Studio serves only the "
            "folders below it.",
            remedy="Put them into a folder below it.",
        )
    return folder


def _download(server: LabelStudio, reference: object, folder: Path, task: LabelTask) -> bool:
    """Download an upload to the folder; return False if the image is not an upload."""
    path = upload_path(reference) if isinstance(reference, str) else None
    if path is None:
        return False
    name = path.rpartition("/")[2]
    # The server is not trusted: a file is created in this folder only.
    if name in (".", "..") or not name.isprintable() or any(sign in name for sign in '\\:*?"<>|'):
        raise DataError(
            f"{task.where} names the upload {name!r}, which is not a valid file name here.",
            remedy="Remove that task from the project.",
        )
    server.download(path, folder / name)
    return True


def _check_is_export(path: Path) -> None:
    """Raise ConfigError if a file exists and holds no tasks of Label Studio."""
    # The export of a project without tasks is an empty list.
    if path.is_file() and not is_export(path) and path.read_bytes().strip() != b"[]":
        raise ConfigError(
            f"{path} exists and is not an export of Label Studio; a pull would replace it.",
            remedy="Give another name or folder with -o.",
        )


def _check_card(path: Path) -> None:
    """Raise ConfigError if the card of a folder describes other data."""
    if path.is_file() and tomllib.loads(path.read_text(encoding="utf-8")).get("path") != _TASKS:
        raise ConfigError(
            f"{path} exists and describes other data, which a pull would replace.",
            remedy="Give another folder with -o.",
        )


def _write_card(path: Path, images: Path | None) -> None:
    """Write the card with which the folder is read as DATA, unless it exists."""
    if path.is_file():
        return
    made = {"path": _TASKS, "kind": "labelstudio"}
    if images is not None:
        made["images"] = str(images.resolve())
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in made.items()]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
