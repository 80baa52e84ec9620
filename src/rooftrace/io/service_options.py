"""Options for the tiles of map services, which the command line reads before it opens an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from rooftrace.core.config import Options
from rooftrace.core.system import installed_versions, user_folder


class ServiceOptions(Options):
    """Options for the tiles of map services; see also the descriptions.

    Args:
        gsd_m: Metres per pixel of the model, from which the zoom is chosen; None if it has none.
        attempts: Maximum number of attempts for a tile, the first one included.
        delay_s: Seconds before the second attempt; the delay doubles each time.
        timeout_s: Seconds without a byte from the server after which an attempt has failed.
        cache_bytes: Maximum size of the cache; the tiles that were used longest ago are removed.
    """

    options_of = "a map service"

    gsd_m: float | None = None
    layer: Annotated[
        str | None, Field(description="Layer of a WMTS or WMS, or of --area; not needed for one.")
    ] = None
    max_tiles: Annotated[int, Field(ge=1, description="Maximum number of tiles of the area.")] = (
        20_000
    )
    connections: Annotated[
        int, Field(ge=1, le=64, description="Maximum number of requests at the same time.")
    ] = 4
    per_second: Annotated[
        float, Field(ge=0.01, le=1000, description="Maximum number of requests per second.")
    ] = 10.0
    user_agent: Annotated[
        str | None,
        Field(
            description="Name and contact that the service sees; default: rooftrace and version."
        ),
    ] = None
    tile_cache: Annotated[
        Path | None, Field(description="Folder of kept tiles; default: in the user's cache.")
    ] = None
    attempts: int = 5
    delay_s: float = 1.0
    timeout_s: float = 20.0
    cache_bytes: int = 2 * 10**9

    def shared(self, workers: int) -> ServiceOptions:
        """Return the limits of each of several workers that make requests at the same time.

        Together they keep the limit per second. Each worker has at least one connection.
        """
        limits = {
            "connections": max(1, self.connections // workers),
            "per_second": self.per_second / workers,
        }
        return self.model_copy(update=limits)

    @property
    def folder(self) -> Path:
        """Folder of the cache."""
        return self.tile_cache or user_folder("cache") / "tiles"

    @property
    def agent(self) -> str:
        """Value of the header User-Agent."""
        version = installed_versions(("rooftrace",)).get("rooftrace") or "0"
        return self.user_agent or f"rooftrace/{version} (building maps from imagery)"
