"""Check whether products can be offered as declared: read their sources whole, compare their columns with what is declared."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pandacea.catalogue.document import unknown_columns
from pandacea.catalogue.products_file import DeclaredProduct
from pandacea.catalogue.sources import open_source
from pandacea.catalogue.table_store import TableStore
from pandacea.domain.ids import AssetId
from pandacea.domain.printable import printable
from pandacea.domain.table import DeclaredAsset, TableShape, find_undecided_columns
from pandacea.errors import BadConfig
from pandacea.flows.ports import UnreadableSource


@dataclass(frozen=True, slots=True)
class RejectedProduct:
    """Why a product is not on offer."""

    product_id: str
    detail: str


def check_shape(asset_id: AssetId, declared: DeclaredAsset, shape: TableShape) -> None:
    """Compare a table's columns with what its Earner declares about them.

    Raises:
        BadConfig: a column is described that is not there, or one that may identify people would be served without the Earner's decision.
    """
    kept = [column.name for column in shape.columns]
    if unknown := unknown_columns(shape.columns, declared.columns):
        what = "the label" if declared.columns[unknown[0]].label else "the column"
        raise BadConfig(
            f"asset {asset_id} describes {what} {unknown[0]!r}, which it does not have or does not keep; kept are: "
            f"{', '.join(map(printable, kept[:30]))}."
        )
    if absent := sorted(set(declared.keep_flagged) - set(kept)):
        raise BadConfig(
            f"asset {asset_id} names {absent[0]!r} under keep_flagged, a column that it does not have or does not keep."
        )
    if open_columns := find_undecided_columns(shape, declared):
        listed = "; ".join(f"{printable(column.name)} ({', '.join(map(printable, column.flags))})" for column in open_columns)
        raise BadConfig(
            f"asset {asset_id} has columns that may identify people: {listed}. Nothing of the product is served until products.yaml "
            "says of each what to do: name it under drop, or under keep_flagged if it is to stay."
        )


async def check_product(product: DeclaredProduct, data_dir: Path, tables: TableStore) -> RejectedProduct | None:
    """Read every source of a product to its end, as registering it would; None: the product can be offered.

    What is converted is kept and not converted again.

    Raises:
        Unavailable, Broken: the sandbox or the disk failed; nothing is known about the product.
    """
    for asset_id, declared in product.assets.items():
        try:
            with open_source(declared.source, data_dir) as source:
                recipe_digest = await asyncio.to_thread(source.recipe_digest, declared.recipe)
                table = await tables.convert_source(source, declared.recipe, recipe_digest, lambda _done, _total: None)
            check_shape(asset_id, declared, table.shape)
        except UnreadableSource as error:
            return RejectedProduct(product.product_id, f"{declared.source.name}: {error.detail}")
        except BadConfig as error:
            return RejectedProduct(product.product_id, error.detail)
    return None
