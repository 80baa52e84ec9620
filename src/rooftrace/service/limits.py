"""How much a server does for those who ask."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What is refused before it costs anything.

    Args:
        upload_bytes: of one image that is answered at once.
        pixels: likewise; a small file may hold very many.
        job_upload_bytes: of the image of a job.
        job_pixels: likewise.
        running: requests that are worked on at the same time.
        waiting: requests that are worked on or wait; one more is told to come again.
        seconds: that a request may take, its waiting included.
        decode_seconds: that its image may take to be decoded.
        decode_bytes: of memory that a process may have that decodes strangers' images.
        jobs_waiting: jobs that wait; one more is told to come again.
    """

    upload_bytes: int = 64 * 2**20
    pixels: int = 64_000_000
    job_upload_bytes: int = 16 * 2**30
    job_pixels: int = 10_000_000_000
    running: int = 4
    waiting: int = 32
    seconds: float = 120.0
    decode_seconds: float = 20.0
    decode_bytes: int = 4 * 2**30
    jobs_waiting: int = 100
