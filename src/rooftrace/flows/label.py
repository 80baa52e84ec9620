"""`rooftrace label`: images and our predictions to a Label Studio server, and its labels back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from os.path import commonpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError, LayoutError
from rooftrace.core.types import Scene
from rooftrace.data.config import SourceConfig
from rooftrace.data.folders import CARD
from rooftrace.data.images import image_name
from rooftrace.data.kinds import open_source
from rooftrace.data.labelstudio import label_config, predictions
from rooftrace.data.labelstudio.client import LabelStudio
from rooftrace.data.labelstudio.picture import is_shown_by_browsers, picture_of
from rooftrace.data.labelstudio.project import find_project, number_of, polygon_tool
from rooftrace.data.labelstudio.references import (
    FILE_KEY,
    ID_KEY,
    ImageFinder,
    image_key,
    own_images,
    upload_path,
)
from rooftrace.data.labelstudio.tasks import Task, read_tasks
from rooftrace.data.labelstudio.write import scene_data
from rooftrace.data.source import Entry
from rooftrace.io.atomic import write_atomically
from rooftrace.predict.predictor import Predictor, load
from rooftrace.predict.result import Prediction

__all__ = ["PullReport", "PushReport", "run_pull", "run_push"]

Progress = Callable[[int, int], None]

_TASKS = "tasks.json"
_LONGEST_NAME = 60
"""The server keeps names of up to a hundred signs, its own folder and digits among them."""


@dataclass(frozen=True)
class PushReport:
    """What a server has now.

    Args:
        project: the number of the project.
        url: where people open it.
        created: whether it is new.
        pushed: ids of the scenes that are new in it.
        skipped: ids of those that it had already.
        buildings: polygons that were predicted for the new ones.
        notes: what was assumed, for people to see.
    """

    project: int
    url: str
    created: bool
    pushed: tuple[str, ...]
    skipped: tuple[str, ...]
    buildings: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class PullReport:
    """What came back.

    Args:
        path: what `rooftrace` takes as DATA.
        tasks: of the project.
        annotated: those of them with an annotation that was not skipped.
        downloaded: images that were not here.
        notes: what was left where it is, for people to see.
    """

    path: str
    tasks: int
    annotated: int
    downloaded: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return asdict(self)


def run_push(
    data: SourceConfig,
    server: LabelStudio,
    project: str,
    *,
    bundle: Path | None = None,
    local_files_root: Path | None = None,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> PushReport:
    """Make a task of each image of `data` that the project does not have, with our predictions.

    Args:
        data: of any kind; its labels, if it has some, stay here.
        server: where to.
        project: its number, or its title; a project of that title is made where there is none.
        bundle: the model; default the one that comes with rooftrace.
        local_files_root: the server's document root, if it is on this machine or under the same
            path; the images are then shown from where they lie, and not uploaded.
        threshold: on the building's probability; default the model's own.
        progress: called with the images that are done and that there are.

    Raises:
        ConfigError: the server, the token or the project is wrong, or no label of the project is
            the model's building; an image is not below the root.
        DataError, BundleError, PredictError: as an image, the model or the server gives cause.
    """
    source = open_source(data).with_unlabelled()
    root = None if local_files_root is None else local_files_root.resolve()
    served = None if root is None else _served_folder(source.entries, root)
    predictor = load(bundle)
    spec = predictor.bundle.spec
    project_found = find_project(server, project)
    created = project_found is None
    if project_found is None:
        project_found = server.create_project(project, label_config(spec.classes))
    tool = polygon_tool(project_found, spec.classes[spec.building_class])
    number = number_of(project_found)
    if served is not None:
        server.serve_folder(number, served)
    known = {one.get(ID_KEY) for one in server.task_data(number)}
    new = tuple(entry for entry in source.entries if entry.id not in known)
    top = expand_path(data.path, Path(), key="path").resolve()
    buildings = 0
    notes: dict[str, None] = {}
    for done, (entry, scene) in enumerate(zip(new, replace(source, entries=new))):
        made = _predict(predictor, scene, threshold)
        notes.update(dict.fromkeys(made.summary.notes))
        footprints = made.outlines.of_class(spec.building_class)
        buildings += len(footprints)
        if root is None or entry.image is None:
            picture = picture_of(scene.image, entry.image, _short_name(entry))
            reference = server.upload(number, picture.name, picture.content, picture.media_type)
        else:
            below = entry.image.resolve().relative_to(root).as_posix()
            reference = f"/data/local-files/?d={quote(below)}"
        task_data = scene_data(entry, scene, reference, key=tool.key, placed=False)
        if entry.image is not None:
            task_data[FILE_KEY] = _name_below(entry.image, top)
        found = predictions(
            footprints, made.mask.grid, [tool.label], spec.name,
            building_class=0, control=tool.control,
        )  # fmt: skip
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
        notes=(*source.notes, *notes),
    )


def run_pull(
    server: LabelStudio,
    project: str,
    out: Path,
    *,
    images: Path | None = None,
    progress: Progress | None = None,
) -> PullReport:
    """Fetch all tasks of a project with their annotations, and the uploaded images not here yet.

    Args:
        server: where from.
        project: its number or its title.
        out: a `.json` file, or a folder for `tasks.json` and a card with which the folder is DATA.
            Images go into a folder beside the file, `…_images`.
        images: where images lie already, such as the folder that was pushed.
        progress: called with the tasks that are looked at and that there are.

    Raises:
        ConfigError: the server, the token or the project is wrong.
        DataError, ExportError: the server or the disk gives cause.
    """
    found = find_project(server, project)
    if found is None:
        raise ConfigError(
            f"{server.url} has no project called {project!r}.",
            remedy="Check --project; its number stands in the address of its page.",
        )
    if images is not None and not images.exists():
        raise LayoutError(f"There is nothing at {images}.", remedy="Check --images.")
    as_file = out.suffix.lower() == ".json"
    path = out if as_file else out / _TASKS
    server.export(number_of(found), path)
    tasks, _ = read_tasks(path)
    finder = ImageFinder.beside(path, images)
    downloaded = 0
    absent: list[str] = []
    for done, task in enumerate(tasks):
        reference = task.data[image_key(task.data, task.where)]
        try:
            finder.find(reference, task.where, pushed_from=str(task.data.get(FILE_KEY, "")))
        except LayoutError:
            if _download(server, reference, own_images(path), task):
                downloaded += 1
            else:
                absent.append(str(reference))
        if progress is not None:
            progress(done + 1, len(tasks))
    notes = []
    if absent:
        notes.append(
            f"{len(absent)} images were not uploaded to the server and are not here, such as "
            f"{absent[0]}; say where they are with --images."
        )
    if as_file and images is not None:
        notes.append(f"Read {path} with --images {images}.")
    if not as_file:
        _write_card(out, images)
    return PullReport(
        path=str(out),
        tasks=len(tasks),
        annotated=sum(bool(task.annotations) for task in tasks),
        downloaded=downloaded,
        notes=tuple(notes),
    )


def _predict(predictor: Predictor, scene: Scene, threshold: float | None) -> Prediction:
    # Only what the image itself does not say.
    gsd_m = None if scene.gsd_m == scene.image.grid.gsd_m else scene.gsd_m
    return predictor.predict(scene.image, gsd_m=gsd_m, threshold=threshold)


def _served_folder(entries: Sequence[Entry], root: Path) -> Path:
    """The folder below the server's document root that holds all images.

    Raises:
        ConfigError: an image is not below it, or is one that no browser shows.
    """
    files = [entry.image.resolve() for entry in entries if entry.image is not None]
    for file in files:
        if root not in file.parents:
            raise ConfigError(
                f"{file} is not below --local-files-root {root}.",
                remedy="Name the document root of the server, or leave the option out: then the "
                "images are uploaded.",
            )
        if is_shown_by_browsers(file) is None:
            raise ConfigError(
                f"{file} is no upright PNG or JPEG, and a browser shows no other image as it lies.",
                remedy="Leave --local-files-root out: then a PNG of it is uploaded.",
            )
    folder = Path(commonpath([file.parent for file in files])) if files else root
    if folder == root:
        raise ConfigError(
            f"The images lie in --local-files-root {root} itself; Label Studio serves only the "
            "folders below it.",
            remedy="Put them into a folder of their own there.",
        )
    return folder


def _short_name(entry: Entry) -> str:
    return image_name(entry.id)[-_LONGEST_NAME:]


def _name_below(image: Path, top: Path) -> str:
    """The way from the data to an image, or its name where it lies elsewhere."""
    real = image.resolve()
    return real.relative_to(top).as_posix() if top in real.parents else image.name


def _download(server: LabelStudio, reference: object, folder: Path, task: Task) -> bool:
    """Fetch an upload into the folder; False where the image is none, and stays where it is."""
    path = upload_path(reference) if isinstance(reference, str) else None
    if path is None:
        return False
    name = path.rpartition("/")[2]
    # The name is the server's word; a file is made in our folder and nowhere else.
    if name in (".", "..") or not name.isprintable() or any(sign in name for sign in '\\:*?"<>|'):
        raise DataError(
            f"{task.where} names the upload {name!r}, which is no name for a file here.",
            remedy="Take that task out of the project.",
        )
    server.download(path, folder / name)
    return True


def _write_card(folder: Path, images: Path | None) -> None:
    """With which the folder is read as DATA."""
    lines = [f"path = {json.dumps(_TASKS)}", 'kind = "labelstudio"']
    if images is not None:
        lines.append(f"images = {json.dumps(str(images.resolve()), ensure_ascii=False)}")
    write_atomically(folder / CARD, ("\n".join(lines) + "\n").encode())
