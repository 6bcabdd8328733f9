"""Deployment records: a LeaseAgreement's address, the block of its creation, and the hash that its code must have."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pandacea_sdk.protocol.ids import ADDRESS, HASH32
from pandacea_sdk.protocol.json_types import JsonObject


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployed contract, as its record states it."""

    chain_id: int
    address: str
    """Lower-case hex."""
    deploy_block: int
    """Block of its creation: no log of the contract is older."""
    code_hash: str
    """keccak256 of the code at the address, in lower-case hex."""

    def to_json(self) -> str:
        """Write the record as JSON, one member on each line."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Deployment:
        """Read a record from JSON.

        Raises:
            ValueError: it is not a JSON object with exactly these members, or a member has an impossible value.
        """
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"a deployment record must be JSON: {error}") from error
        names = set(cls.__dataclass_fields__)
        if not isinstance(found, dict) or set(found) != names:
            raise ValueError(f"a deployment record must be an object with exactly {', '.join(sorted(names))}")
        _check(found)
        return cls(**{**found, "address": found["address"].lower(), "code_hash": found["code_hash"].lower()})

    @classmethod
    def read(cls, path: Path) -> Deployment:
        """Read a record from a file; a `ValueError` names the file."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def write(self, path: Path) -> None:
        """Write the record to a file."""
        path.write_text(self.to_json(), encoding="utf-8")


def _check(found: JsonObject) -> None:
    for name, least in (("chain_id", 1), ("deploy_block", 0)):
        value = found[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number from {least} on, not {value!r}")
    for name, pattern, digits in (("address", ADDRESS, 40), ("code_hash", HASH32, 64)):
        value = found[name]
        if not isinstance(value, str) or not pattern.fullmatch(value.lower()):
            raise ValueError(f"{name} must be 0x and {digits} hex digits, not {value!r}")
