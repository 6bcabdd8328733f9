"""The products of one node, and of several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from pandacea_sdk.errors import NodeError, PandaceaError
from pandacea_sdk.node import NodeConnection, parse_object
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.transport import Transport

MAX_PAGES: Final = 1000
"""Of one node's list; what comes after is not read."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """The products of several nodes, each with the member `url`; and the nodes that gave no list, with the reason."""

    products: Sequence[JsonObject]
    unreachable: Mapping[str, str]


async def list_products(node: NodeConnection) -> list[JsonObject]:
    """Fetch the list of all products of a node.

    Raises:
        NodeError: the list does not have the expected shape.
    """
    found: list[JsonObject] = []
    cursor = ""
    for _ in range(MAX_PAGES):
        target = f"/api/v1/products?cursor={quote(cursor, safe='')}" if cursor else "/api/v1/products"
        page = parse_object(await node.get_public(target))
        data, cursor = page.get("data"), page.get("nextCursor") or ""
        if not isinstance(data, list) or not isinstance(cursor, str):
            raise NodeError("bad-answer", "The node's list of products does not have the expected shape.")
        found += [item for item in data if isinstance(item, dict)]
        if not cursor:
            break
    return found


async def discover_products(urls: Sequence[str], connect: Callable[[str], Transport]) -> Discovery:
    """Fetch the lists of several nodes at once; one that fails is named and takes nothing from the others."""

    async def fetch(url: str) -> list[JsonObject] | str:
        try:
            node = NodeConnection(connect(url), None, None, None)
        except PandaceaError as error:
            return str(error)
        try:
            return await list_products(node)
        except PandaceaError as error:
            return str(error)
        finally:
            await node.close()

    answers = dict(zip(urls, await asyncio.gather(*(fetch(url) for url in urls)), strict=True))
    products = [{**product, "url": url} for url, answer in answers.items() if not isinstance(answer, str) for product in answer]
    return Discovery(products, {url: answer for url, answer in answers.items() if isinstance(answer, str)})
