"""Files and cameras as PyAV (FFmpeg) opens them, and no more than they hold themselves."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from rooftrace.core.errors import DataError, MissingExtraError

__all__ = ["is_camera", "open_video", "require_av"]

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,m4v,h264,hevc,"
    "av1,ivf,obu,mjpeg,mpjpeg,dv,mxf,nut,wtv,rm,swf,yuv4mpegpipe,y4m,vc1,apng"
)
"""Containers that hold their pictures themselves. Those that name other files or addresses (HLS,
lists of files) are left out: a stranger's file would choose what this machine opens."""

_CAMERA = re.compile(r"camera(?::(\d+))?|(/dev/video\d+)")

_PATIENCE_S = 10.0
"""A disk may be slow; a camera that is silent for so long is gone."""


def require_av(needed_for: str) -> None:
    """Raise MissingExtraError where PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("video", needed_for, "av") from error


def is_camera(source: str | Path) -> bool:
    """Whether it is `camera`, `camera:1` or `/dev/video0`, and not a file."""
    return _CAMERA.fullmatch(str(source)) is not None


def open_video(source: str | Path) -> Any:
    """A file or a camera as PyAV's container; it opens no other file.

    Raises:
        MissingExtraError: PyAV is not installed.
        DataError: there is none, or it cannot be read.
    """
    require_av("Reading a video")
    import av

    given = str(source)
    camera = _CAMERA.fullmatch(given)
    if camera is None and "://" in given:
        raise DataError(
            f"{given} is an address, expected a file or a camera.", remedy="Download it first."
        )
    if camera is None and not Path(given).exists():
        raise DataError(f"There is no video at {given}.", remedy="Check the path.")
    if camera is None:
        # By its scheme, since a colon in a name would be taken for one.
        opened, options = f"file:{given}", {"format_whitelist": _FORMATS}
        kind = None
    else:
        opened, kind = _device(camera)
        options = {}
    patience_s = None if camera is None else _PATIENCE_S
    try:
        return av.open(
            opened, format=kind, container_options=options, metadata_errors="replace",
            timeout=patience_s,
        )  # fmt: skip
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error) or repr(error)).rstrip(".")
        if camera is not None:
            raise DataError(
                f"The camera {given} cannot be opened: {reason}.",
                remedy="See with `ls /dev/video*` which there are, and that nothing else uses it.",
            ) from error
        raise DataError(
            f"{given} cannot be read as a video: {reason}.",
            remedy="Where it broke off while it was recorded, its index may be missing: have it "
            "repaired, or record into .mkv, which needs none. Images are for rooftrace predict.",
        ) from error


def _device(camera: re.Match[str]) -> tuple[str, str]:
    """What FFmpeg calls a camera: a name, and the kind of device."""
    number = camera[1] or "0"
    if sys.platform == "darwin":
        return number, "avfoundation"
    return camera[2] or f"/dev/video{number}", "v4l2"
