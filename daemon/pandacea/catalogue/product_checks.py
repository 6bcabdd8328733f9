"""Whether products can be offered as they are stated: their sources read whole, their columns held against what is said of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pandacea.catalogue.document import unknown_columns
from pandacea.catalogue.products_file import DeclaredProduct
from pandacea.catalogue.sources import hash_file, open_source
from pandacea.catalogue.table_store import TableStore
from pandacea.domain.ids import AssetId
from pandacea.domain.printable import printable
from pandacea.domain.table import DeclaredAsset, TableShape, find_undecided_columns
from pandacea.errors import BadConfig
from pandacea.flows.conversion import UnreadableSource


@dataclass(frozen=True, slots=True)
class RejectedProduct:
    """Why a product is not on offer."""

    product_id: str
    detail: str


def check_shape(asset_id: AssetId, said: DeclaredAsset, shape: TableShape) -> None:
    """Hold a table's columns against what its Earner says of them.

    Raises:
        BadConfig: a column is described that is not there, or one that may identify people would be served without the Earner's word.
    """
    kept = [column.name for column in shape.columns]
    if unknown := unknown_columns(shape.columns, said.columns):
        what = "the label" if said.columns[unknown[0]].label else "the column"
        raise BadConfig(
            f"asset {asset_id} describes {what} {unknown[0]!r}, which it does not have or does not keep; kept are: "
            f"{', '.join(map(printable, kept[:30]))}."
        )
    if absent := sorted(set(said.keep_flagged) - set(kept)):
        raise BadConfig(
            f"asset {asset_id} names {absent[0]!r} under keep_flagged, a column that it does not have or does not keep."
        )
    if open_columns := find_undecided_columns(shape, said):
        listed = "; ".join(f"{printable(column.name)} ({', '.join(map(printable, column.flags))})" for column in open_columns)
        raise BadConfig(
            f"asset {asset_id} has columns that may identify people: {listed}. Nothing of the product is served until products.yaml "
            "says of each what to do: name it under drop, or under keep_flagged if it is to stay."
        )


async def check_product(stated: DeclaredProduct, data_dir: Path, tables: TableStore) -> RejectedProduct | None:
    """Read every source of a product to its end, as registering it would; what is read is kept and not read again. None: all is well.

    Raises:
        Unavailable, Broken: the sandbox or the disk failed; nothing is known about the product.
    """
    for asset_id, said in stated.assets.items():
        try:
            with open_source(said.source, data_dir) as source:
                digest, _ = await asyncio.to_thread(hash_file, source.descriptor)
                made = await tables.convert_source(source, said.recipe, said.recipe.digest(digest), lambda _done, _total: None)
            check_shape(asset_id, said, made.shape)
        except UnreadableSource as problem:
            return RejectedProduct(stated.product_id, f"{said.source.name}: {problem.detail}")
        except BadConfig as problem:
            return RejectedProduct(stated.product_id, problem.detail)
    return None
