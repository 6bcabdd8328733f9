"""Products of several nodes, and mock rows as frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from pandacea_sdk.client import PandaceaClient
from pandacea_sdk.errors import UntrustedResult, UsageError
from tests.sdk.conftest import FakeNode, problem_response

ROWS = b"age,code\n1,01\n2,\n"
SCHEMA = [{"name": "age", "type": "int64"}, {"name": "code", "type": "string"}]
PRODUCT: dict[str, Any] = {
    "productId": "p",
    "document": {"assets": [{"asset_id": "a", "schema": SCHEMA, "mock": {"sha256": hashlib.sha256(ROWS).hexdigest()}}]},
}


@pytest.fixture
def client(node: FakeNode) -> Iterator[PandaceaClient]:
    async def hook(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | dict[str, Any] | None:
        if request.path.endswith("mock.csv"):
            return web.Response(body=ROWS)
        if request.path.endswith("/products"):
            return {"data": [{"productId": "p"}], "nextCursor": ""}
        return PRODUCT if request.path.endswith("/products/p") else None

    node.hook = hook
    with PandaceaClient(node.url, key="11" * 32) as made:
        yield made


def test_one_list_over_several_nodes_names_those_that_gave_none(node: FakeNode, client: PandaceaClient) -> None:
    """A closed port, and an address that is none, take nothing from the others."""
    found = client.discover_products([node.url, "http://127.0.0.1:9", "http://clinic.example"])
    assert found.products == [{"productId": "p", "url": node.url}]
    assert found.unreachable.keys() == {"http://127.0.0.1:9", "http://clinic.example"}
    assert "use https" in found.unreachable["http://clinic.example"]
    assert not any("Signature" in headers for headers in node.seen_headers)


def test_a_node_that_refuses_its_list_is_named_with_the_reason(node: FakeNode, client: PandaceaClient) -> None:
    """The sentence is the node's own."""

    async def hook(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return problem_response("internal-error", 500)

    node.hook = hook
    assert "internal-error it is" in client.discover_products([node.url]).unreachable[node.url]


def test_mock_rows_come_as_a_frame_with_the_private_types(client: PandaceaClient) -> None:
    """By the product's id or by what `product` returned; text keeps its zeros."""
    for product in ("p", client.product("p")):
        frame = client.mock_data(product, "a")
        assert str(frame["age"].dtype) == "int64"
        assert frame["code"][0] == "01"
        assert frame["code"].isna().tolist() == [False, True]


def test_a_table_that_is_not_there_is_answered_with_those_that_are(node: FakeNode, client: PandaceaClient) -> None:
    """And a false mock is not read."""
    with pytest.raises(UsageError, match="no table 'b' with mock rows; it has a"):
        client.mock_data("p", "b")
    document = {"assets": [PRODUCT["document"]["assets"][0] | {"mock": {"sha256": "0" * 64}}]}
    with pytest.raises(UntrustedResult):
        client.mock_data(PRODUCT | {"document": document}, "a")
