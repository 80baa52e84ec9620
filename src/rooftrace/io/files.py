"""Files that appear under their name only when they are complete, and locks between processes.

`replacing` writes a file atomically; `locked` keeps other processes from writing to a folder.
"""

import codecs
import errno
import gzip
import io
import os
import re
import secrets
import shlex
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from rooftrace.core.errors import BundleError, ConfigError, DataError, ExportError
from rooftrace.core.system import call_in_forks, is_file_at, take_lock
from rooftrace.core.text import list_and_count, reason_of

_QGIS_STYLES = "layer_styles"
"""Table in which QGIS keeps the styles of the layers of a GeoPackage."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Codes of the system's errors that say that a disk is full."""

NOT_WRITABLE = (*DISK_FULL, errno.EFBIG, errno.EROFS)
"""Codes of the system's errors that say that a file cannot be written."""


def is_file(path: str | Path) -> bool:
    """Return whether a file exists; False also for names that no file can have."""
    try:
        # Much faster than paths, and many images are looked for.
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def check_exists(path: Path) -> None:
    """Raise DataError if there is nothing at a path, such as a URL where a file is expected."""
    if not path.exists():
        if path.parts[:1] in (("http:",), ("https:",), ("s3:",)):
            # A path keeps one of two slashes.
            url = str(path).replace(":/", "://", 1)
            raise DataError(
                f"{url} is a URL; expected a file.",
                remedy="Download it first, or predict it: rooftrace predict reads URLs and map "
                "services, and compare and density read its folder.",
            )
        raise DataError(f"{path} does not exist.", remedy="Check the path.")


def is_url(text: str) -> bool:
    """Return True if an input is a URL and not a path."""
    return "://" in text


def read_head(path: str | Path, count: int) -> bytes:
    """Return up to `count` bytes of the beginning of a file, without a BOM.

    Raises:
        OSError: The file cannot be read.
    """
    # A path's `open` takes longer, and many files are looked at. Unbuffered: a buffer reads more
    # of the file than is asked for.
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return (file.read(count) or b"").removeprefix(codecs.BOM_UTF8)


def opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """Open a file for reading, the content of one that is compressed (.gz)."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def xml_root(path: Path) -> Any:
    """Return the root of an XML file.

    Raises:
        OSError, ValueError, xml.etree.ElementTree.ParseError: It cannot be read, or is not XML.
    """
    from xml.etree import ElementTree  # few commands read XML

    # Expat stops at entity expansion attacks and loads no external entity.
    return ElementTree.parse(path).getroot()  # noqa: S314  # nosec B314


def metadata_root(path: Path) -> Any:
    """Return the root of GDAL's metadata of an image, a file that ends in `.aux.xml`."""
    from xml.etree import ElementTree

    try:
        # GDAL reads any bytes in it, such as texts in Latin-1. See `xml_root` for attacks.
        return ElementTree.fromstring(path.read_text("utf-8", "replace"))  # noqa: S314  # nosec B314
    except (ElementTree.ParseError, OSError) as error:
        raise DataError(
            f"{path} is damaged: {reason_of(error)}. It may hold georeference and nodata value.",
            remedy="Copy the image again with all files beside it, or remove this one.",
        ) from error


def visible_files(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and all its subfolders, each with the sorted names of its files.

    Hidden files and folders are left out: `.git` or `.venv` may hold more files than all others.
    """
    # It does not follow links, so no link leads to an endless loop.
    for where, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(where), sorted(name for name in names if not name.startswith("."))


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raise an error for a result that would replace an input, or other layers of a database.

    Call it before the work.

    Args:
        inputs: Files that are read; None and what does not exist are left out.
    """
    given = {(one.st_dev, one.st_ino): path for path in inputs if path and (one := _stat(path))}
    for path in outputs:
        found = _stat(path)
        replaced = None if found is None else given.get((found.st_dev, found.st_ino))
        if replaced is not None:
            raise ConfigError(
                f"The result {path} would replace the input {replaced}.",
                remedy="Give another name or folder with -o.",
            )
        is_package = found is not None and path.suffix.lower() in (".gpkg", ".gdb")
        if is_package and (others := _other_layers(path)):
            raise ConfigError(
                f"The result {path} would replace other data: {list_and_count(others)}.",
                remedy="Give another name with -o. Its layer can be added to this file afterwards: "
                f"ogr2ogr -update {shlex.quote(str(path))} OTHER.gpkg",
            )


def prepare_folder(folder: Path, outputs: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Create the folder of the results, see `check_outputs`.

    Raises:
        ConfigError: A result would replace an input.
        ExportError: It is a file, or cannot be created.
    """
    check_outputs(outputs, inputs)
    with exporting(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _other_layers(path: Path) -> list[str]:
    """Return the layers of a GeoPackage or geodatabase that have not the name of the file, or the
    files of a folder that is none.
    """
    if path.is_dir():
        import pyogrio

        # A folder of other files, or a geodatabase of images alone, has no layer.
        with suppress(pyogrio.errors.DataSourceError):
            if names := pyogrio.list_layers(path)[:, 0].tolist():
                # GDAL keeps letters and digits of a name.
                own = re.sub(r"\W", "_", path.stem).strip("_")
                return [name for name in names if name.strip("_") != own]
        return sorted(file.name for file in path.iterdir())
    import sqlite3  # takes a while, and most results are no GeoPackage of another run

    uri = f"{path.absolute().as_uri()}?mode=ro"
    # Another file, or a damaged one, has no layers that could be kept.
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True)) as database:
        rows = [str(name) for (name,) in database.execute("SELECT table_name FROM gpkg_contents")]
        return sorted({*rows} - {path.stem, _QGIS_STYLES})
    return []


def check_replaced(outputs: Sequence[Path], read: Callable[[], object], kind: str) -> list[str]:
    """Check before the work that results replace at most files of an earlier run of their kind.

    Returns:
        A note on the file that is replaced, if there is one.
    """
    there = [path for path in outputs if path.exists()]
    if not there:
        return []
    try:
        read()
    except BundleError as error:
        raise ConfigError(
            f"{there[0]} exists and is not {kind}.",
            remedy="Choose another name with -o, or remove the file.",
        ) from error
    return [f"{outputs[0]} of an earlier run was replaced"]


def relative_name(path: Path, base: Path) -> str:
    """Return the relative path by which a file in the folder `base` names another.

    The path is POSIX, so that a file made on one system can be read on another.
    """
    try:
        return Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _stat(path: Path) -> os.stat_result | None:
    with suppress(OSError, ValueError):
        return path.stat()
    return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that replaces `path`, see `replacing_file`.

    The permissions follow the umask also where a library writes a file of its own that only its
    owner may read.
    """
    # It was opened once, so that an error has the reason of the system, not of a driver.
    with replacing_file(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        file.close()
        partial = Path(file.name)
        yield partial
        if partial.stat().st_mode != mode:
            partial.chmod(stat.S_IMODE(mode))


@contextmanager
def replacing_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file beside `path` that replaces it if the block succeeds.

    The suffix is kept, because drivers choose the format by it. If the block fails, the temporary
    file is deleted and `path` is as before.

    Raises:
        ExportError: the folder cannot be created or written to.
    """
    # Processes on several machines may have the same number.
    unique = f"{os.getpid()}{secrets.randbelow(10**9):09d}"
    partial = path.with_name(f".{path.stem}.{unique}.part{path.suffix}")
    try:
        try:
            file = partial.open("wb")
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = partial.open("wb")
        with file:
            yield file
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise export_error(path, error) from error
        raise


def write_atomically(path: Path, data: bytes | memoryview, *, sync: bool = False) -> None:
    """Write a whole file, which appears under its name when it is complete.

    Args:
        sync: Wait until the disk has the data, so that the file survives a power failure.
    """
    with replacing_file(path) as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def written_bytes(name: str, write: Callable[[Path], object]) -> bytes:
    """Return the content of a file that a function writes; nothing stays on disk."""
    with exporting(Path(name)), TemporaryDirectory(prefix="rooftrace-") as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def write_json(path: Path, document: Any) -> None:
    """Write plain data as indented JSON, see `write_atomically`."""
    # Python's own encoder takes a hundred times as long for indented text.
    from pydantic_core import to_json

    write_atomically(path, to_json(document, indent=1, ensure_ascii=True) + b"\n")


def export_error(path: Path, error: Exception) -> ExportError:
    """Return the error for a file that could not be written."""
    folders = (path, *path.parents) if isinstance(error, FileExistsError) else path.parents
    with suppress(OSError):
        if blocking := next((one for one in folders if one.is_file()), None):
            return ExportError(
                f"{path} could not be written: {blocking} is a file, not a folder.",
                remedy="Choose another folder, or move the file.",
            )
    return ExportError(
        f"{path} could not be written: {reason_of(error)}.",
        remedy="Choose a folder with write permission and free space.",
    )


@contextmanager
def exporting(path: Path) -> Iterator[None]:
    """Raise errors of the system in the block as the error for a file or folder to write."""
    try:
        yield
    except OSError as error:
        raise export_error(path, error) from error


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs; the system releases it when the process ends."""
    while True:
        with exporting(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        try:
            take_lock(file)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise ExportError(
                f"{what} is being written to by {holder}.",
                remedy="Wait until that run has ended, stop it, or choose another folder with -o.",
            ) from error
        if is_file_at(file, path):
            break
        # The previous holder has just deleted the file, so this lock protects nothing.
        file.close()
    _LOCKS.add(file)
    try:
        # The name only explains the error of another process, and a full disk may have no space
        # for it. Nothing is buffered that closing the file would write again.
        with suppress(OSError):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        # Deleted before the release: no process may lock a file that is about to be deleted.
        with suppress(OSError):
            path.unlink()
        _LOCKS.discard(file)
        file.close()
        if os.name == "nt":  # which deletes no open file
            with suppress(OSError):
                path.unlink()


_LOCKS: set[IO[str]] = set()
"""Files of the locks that this process holds."""


def _close_locks() -> None:
    """Close the locks in a child, which would keep them after the death of this process."""
    for file in _LOCKS:
        file.close()
    _LOCKS.clear()


call_in_forks(_close_locks)


def demo_scene_path() -> Path:
    """Return the path of the demo scene: GeoTIFF, 3 bands uint8, 2048 × 2048 pixels of 0.3 m."""
    return Path(str(files("rooftrace").joinpath("assets", "demo_scene.tif")))
