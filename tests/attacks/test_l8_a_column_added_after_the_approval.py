"""A script approved for two columns runs on after the table got a third that nobody looked at."""

from __future__ import annotations

from dataclasses import replace

from pandacea.domain.code_approval import CodeState
from pandacea.domain.product import Policy
from pandacea.domain.table import TableColumn, TableShape
from pandacea.flows.approve_code import decide_code
from tests.jobs.conftest import EXECUTE, Served

SCRIPT = "table.to_csv('all.csv')"
INPUTS = [{"asset_id": "a", "variable_name": "table"}]
AGE = TableColumn("age", "int64")
ILL = TableColumn("ill", "bool")
NAME = TableColumn("full_name", "string")


def table_has(served: Served, *columns: TableColumn) -> None:
    """The columns of the product's table from now on."""
    catalogue = served.world.catalogue
    (asset_id, asset), *_ = catalogue.product.assets.items()
    catalogue.product = replace(catalogue.product, assets={asset_id: replace(asset, shape=TableShape(columns, rows=10))})


async def test_an_approval_ends_when_the_columns_change(served: Served) -> None:
    """The request is refused with what to do; handed in again it is another script to decide on; rows alone change nothing."""
    served.rules(policy=Policy.APPROVED_CODE)
    table_has(served, AGE, ILL)
    handed = {"product_id": "p", "code": SCRIPT, "inputs": INPUTS}
    code_id = (await served.send("POST", "/api/v1/privacy/code", handed)).json["code_id"]
    await decide_code(code_id, CodeState.APPROVED, "", served.world.submit.database, served.clock)
    await served.submit(SCRIPT, inputs=INPUTS)
    table_has(served, replace(AGE, missing=3), ILL)
    await served.submit(SCRIPT, inputs=INPUTS)
    table_has(served, AGE, ILL, NAME)
    refused = await served.send("POST", EXECUTE, served.body(SCRIPT, inputs=INPUTS))
    assert refused.code == "code-not-approved"
    assert "Hand it in again" in refused.json["detail"]
    again = (await served.send("POST", "/api/v1/privacy/code", handed)).json
    assert again["status"] == "pending"
    assert again["code_id"] != code_id
