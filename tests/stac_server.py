"""A STAC API in memory: the routes, models and paging of stac-fastapi over a list of items."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import attr
import shapely
from fastapi import FastAPI
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import create_get_request_model, create_post_request_model
from stac_fastapi.extensions.pagination import TokenPaginationExtension
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError

Json = dict[str, Any]


@attr.s
class MemoryClient(BaseCoreClient):
    """Answers from lists in memory.

    Args:
        collections: Collections by id.
        items: Items, in the order in which a search sends them.
        page: Maximum number of items of a page, also if more are asked for.
    """

    collections: dict[str, Json] = attr.ib(factory=dict)
    items: list[Json] = attr.ib(factory=list)
    page: int = attr.ib(default=100)

    def all_collections(self, **_: Any) -> Any:
        return {"collections": [*self.collections.values()], "links": []}

    def get_collection(self, collection_id: str, **_: Any) -> Any:
        if collection_id not in self.collections:
            raise NotFoundError(f"Collection {collection_id} does not exist.")
        return self.collections[collection_id]

    def get_item(self, item_id: str, collection_id: str, **_: Any) -> Any:
        for item in self.items:
            if (item["collection"], item["id"]) == (collection_id, item_id):
                return item
        raise NotFoundError(f"Item {item_id} does not exist.")

    def item_collection(
        self, collection_id: str, limit: int = 10, token: str | None = None, **k: Any
    ) -> Any:
        return self._found(k["request"], "GET", {"collections": [collection_id]}, limit, token)

    def get_search(self, limit: int | None = 10, token: str | None = None, **asked: Any) -> Any:
        return self._found(asked.pop("request"), "GET", asked, limit, token)

    def post_search(self, search_request: Any, **k: Any) -> Any:
        asked = search_request.model_dump(mode="json", exclude_none=True)
        return self._found(
            k["request"], "POST", asked, asked.pop("limit", 10), asked.pop("token", None)
        )

    def _found(
        self, request: Any, method: str, asked: Json, limit: int | None, token: str | None
    ) -> Any:
        matching = [item for item in self.items if _matches(item, asked)]
        start = int(token or 0)
        stop = start + min(limit or 10, self.page)
        links: list[Json] = []
        if stop < len(matching):
            if method == "POST":
                body = {"token": str(stop)}
                links.append(
                    {
                        "rel": "next",
                        "href": str(request.url),
                        "method": "POST",
                        "body": body,
                        "merge": True,
                    }
                )
            else:
                href = str(request.url.include_query_params(token=stop))
                links.append({"rel": "next", "href": href, "method": "GET"})
        return {"type": "FeatureCollection", "features": matching[start:stop], "links": links,
                "numberMatched": len(matching)}  # fmt: skip


def _matches(item: Json, asked: Json) -> bool:
    if asked.get("collections") and item["collection"] not in asked["collections"]:
        return False
    if asked.get("ids") and item["id"] not in asked["ids"]:
        return False
    if asked.get("bbox"):
        bounds = [float(edge) for edge in asked["bbox"]]
        if not shapely.from_geojson(json.dumps(item["geometry"])).intersects(shapely.box(*bounds)):
            return False
    if asked.get("datetime"):
        first, _, last = str(asked["datetime"]).partition("/")
        own = datetime.fromisoformat(item["properties"]["datetime"])
        return (first in ("", "..") or datetime.fromisoformat(first) <= own) and (
            (last or first) in ("", "..") or own <= datetime.fromisoformat(last or first)
        )
    return True


def stac_app(client: MemoryClient) -> FastAPI:
    """Return the API over a client."""
    paging = TokenPaginationExtension()
    return StacApi(
        settings=ApiSettings(), client=client, extensions=[paging],
        search_get_request_model=create_get_request_model([paging]),
        search_post_request_model=create_post_request_model([paging]),
    ).app  # fmt: skip
