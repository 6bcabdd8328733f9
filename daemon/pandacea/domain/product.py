"""A product, which is what an Earner leases: its assets, its rules, and the version that a request may name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pandacea.domain.ids import AssetId, Hash32, ProductId, Wei
from pandacea.domain.table import TableShape
from pandacea_sdk.protocol.json_types import JsonObject


class Policy(StrEnum):
    """Which scripts may run."""

    APPROVED_CODE = "approved-code"
    ANY_CODE = "any-code"


class Release(StrEnum):
    """Who lets a result out."""

    HOLD = "hold"
    AUTO = "auto"


class LiveOutput(StrEnum):
    """What a Spender sees while a script runs."""

    NONE = "none"
    PROGRESS = "progress"
    FULL = "full"


class Rehearsal(StrEnum):
    """Who may run a script on the mock rows on this node. Without a lease one runs it at home: the mock rows are public."""

    LEASE = "lease"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Rules:
    """The Earner's rules; the defaults, which a product without stated rules gets, are the strictest about the data.

    A rehearsal does not touch the data: it runs on the mock rows, which are public.
    """

    policy: Policy = Policy.APPROVED_CODE
    release: Release = Release.HOLD
    live_output: LiveOutput = LiveOutput.NONE
    rehearsal: Rehearsal = Rehearsal.LEASE
    show_messages: bool = False
    """Whether a script's exception message (which may quote data) is in the result, beside its class and line."""

    def as_json(self) -> JsonObject:
        """Return the rules as published in the catalogue and in the signed product version."""
        return {
            "policy": self.policy.value,
            "release": self.release.value,
            "live_output": self.live_output.value,
            "rehearsal": self.rehearsal.value,
            "show_messages": self.show_messages,
        }


@dataclass(frozen=True, slots=True)
class Mock:
    """Mock rows, made from the published description. `sha256`: of the CSV text; `table`: the same rows in Arrow, for scripts."""

    sha256: str
    csv: Path
    table: Path


@dataclass(frozen=True, slots=True)
class Asset:
    """One table at one version. `path` is the node's own; of its content only `commitment` leaves the node."""

    asset_id: AssetId
    commitment: str
    """64 hex digits: HMAC-SHA-256(key of this asset version, sha-256 of the stored bytes)."""
    path: Path
    format: str
    shape: TableShape | None = None
    """Columns and exact counts: the node's own; what is published of it is in the product's document."""
    mock: Mock | None = None

    @property
    def columns_sha256(self) -> str:
        """The sha-256 (hex) of the columns' names and types in their order: an approval of a script holds for these columns."""
        columns = [[column.name, column.type] for column in self.shape.columns] if self.shape else []
        return hashlib.sha256(json.dumps(columns).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Product:
    """A published product at its current version."""

    product_id: ProductId
    product_hash: Hash32
    """keccak256 of the UTF-8 id: the contract's `dataProductId`."""
    version: Hash32
    rules: Rules
    price: Wei
    assets: Mapping[AssetId, Asset]
    document: JsonObject = field(repr=False)
    """The signed document, as the catalogue shows it."""
    signature: str = field(repr=False, default="")

    def columns_of(self, asset_ids: Iterable[str]) -> dict[str, str]:
        """Return `Asset.columns_sha256` by asset id, for those of the ids that the product has."""
        return {asset_id: self.assets[AssetId(asset_id)].columns_sha256 for asset_id in sorted(set(asset_ids) & set(self.assets))}


def rounded_rows(rows: int | None) -> int | None:
    """Round a row count as it is published: two significant digits, so that one person more or less does not show."""
    if rows is None or rows < 10:
        return None if rows is None else 0
    scale = 10 ** (len(str(rows)) - 2)
    return int(round(rows / scale) * scale) if scale > 1 else rows // 10 * 10
