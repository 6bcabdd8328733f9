"""The body of POST /api/v1/privacy/execute: each fault has its own code and the JSON pointer of its field."""

from __future__ import annotations

import json
import keyword
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import rfc8785

from pandacea_sdk.protocol import strict_json
from pandacea_sdk.protocol.hashing import sha256_hex
from pandacea_sdk.protocol.ids import ASSET_ID, HASH32, SHA256_HEX
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.limits import MAX_CODE_BYTES, MAX_INPUTS, MAX_UPLOADS, MAX_VARIABLE_CHARACTERS
from pandacea_sdk.protocol.problems import ProtocolError

UPLOAD_NAME: Final = ASSET_ID
"""Uploads appear as files at /workspace/in/NAME: one plain path segment, so a name cannot be a path."""

RESERVED_VARIABLES: Final = frozenset({"params", "pandacea_progress"})
"""Names that the guest itself defines for a script."""

Mode = Literal["live", "mock"]


@dataclass(frozen=True, slots=True)
class ComputationInput:
    """One asset of the leased product and the variable in which the script finds it as a DataFrame."""

    asset_id: str
    variable_name: str


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """What a Spender asks a node to run."""

    lease_id: str
    code: str
    inputs: tuple[ComputationInput, ...]
    params: Any = field(default_factory=dict)
    uploads: Mapping[str, str] = field(default_factory=dict)
    product_version: str | None = None
    mode: Mode = "live"
    seed: int | None = None
    """What the script's random generators start from; None: the node derives one from the computation's id."""

    def code_sha256(self) -> str:
        """Compute the sha-256 of the script's UTF-8 bytes, as 64 hex digits."""
        return sha256_hex(self.code.encode())

    def params_bytes(self) -> bytes:
        """Write the parameters as RFC 8785 JSON, in which 1.0 is 1: the manifest hashes these bytes, and the script gets them parsed."""
        return rfc8785.dumps(self.params)

    def to_json(self) -> JsonObject:
        """Build the request body; optional members are left out where they have their defaults."""
        body: JsonObject = {
            "lease_id": self.lease_id,
            "code": self.code,
            "inputs": [{"asset_id": item.asset_id, "variable_name": item.variable_name} for item in self.inputs],
        }
        if self.params != {}:
            body["params"] = self.params
        if self.uploads:
            body["uploads"] = dict(self.uploads)
        if self.product_version is not None:
            body["product_version"] = self.product_version
        if self.mode != "live":
            body["mode"] = self.mode
        if self.seed is not None:
            body["seed"] = self.seed
        return body

    def to_bytes(self) -> bytes:
        """The request body as UTF-8 JSON, members sorted: the same request made by another process has the same bytes."""
        return json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False, sort_keys=True).encode()


# Which members an object may have, and whether each must be there.
_FIELDS: Final = {
    "lease_id": True,
    "code": True,
    "inputs": True,
    "params": False,
    "uploads": False,
    "product_version": False,
    "mode": False,
    "seed": False,
}
MAX_SEED: Final = 2**32 - 1
"""The largest seed that numpy takes."""
_INPUT_FIELDS: Final = {"asset_id": True, "variable_name": True}


def parse_execute_request(raw: bytes) -> ExecuteRequest:
    """Read and check a request body.

    Raises:
        ProtocolError: for the first fault found, with its code and a JSON pointer to the field.
    """
    return check_execute_request(strict_json.parse_json(raw))


def check_execute_request(body: object) -> ExecuteRequest:
    """Check a body that was parsed by `strict_json.parse_json` (or built by the SDK).

    Raises:
        ProtocolError: as `parse_execute_request`.
    """
    members = _object(body, "", _FIELDS)
    return ExecuteRequest(
        lease_id=check_lease_id(members["lease_id"]),
        code=_code(members["code"]),
        inputs=_inputs(members["inputs"]),
        params=members.get("params", {}),
        uploads=_uploads(members.get("uploads", {})),
        product_version=_product_version(members.get("product_version")),
        mode=_mode(members.get("mode")),
        seed=_seed(members.get("seed")),
    )


def check_lease_id(value: object, pointer: str = "/lease_id") -> str:
    """Check a lease id (`0x` and 64 lower-case hex digits) and return it.

    Raises:
        ProtocolError: `wrong-type` or `bad-lease-id`.
    """
    text = _string(value, pointer)
    if not HASH32.fullmatch(text):
        raise ProtocolError(
            "bad-lease-id", "lease_id must be 0x and 64 lower-case hex digits, as the contract's event shows it.", pointer
        )
    return text


def check_variable_name(name: str, pointer: str) -> str:
    """Check that a name is a Python identifier that nothing else uses, and return it.

    Python compares identifiers after NFKC normalisation, so only names already in that form are accepted: two that differ here
    differ in the script.

    Raises:
        ProtocolError: `bad-variable-name`, `name-not-normalised` or `reserved-variable-name`.
    """
    if len(name) > MAX_VARIABLE_CHARACTERS or not name.isidentifier() or keyword.iskeyword(name):
        raise ProtocolError(
            "bad-variable-name",
            f"variable_name must be a Python identifier of at most {MAX_VARIABLE_CHARACTERS} characters and not a keyword; "
            f"{_shown(name)} is not usable.",
            pointer,
        )
    if unicodedata.normalize("NFKC", name) != name:
        raise ProtocolError(
            "name-not-normalised", f"variable_name {_shown(name)} is not in NFKC form; Python would change it.", pointer
        )
    if name in RESERVED_VARIABLES or (name.startswith("__") and name.endswith("__")):
        raise ProtocolError(
            "reserved-variable-name", f"variable_name {_shown(name)} is used by the environment; choose another.", pointer
        )
    return name


def _code(value: object) -> str:
    code = _string(value, "/code")
    size = len(code.encode())
    if size > MAX_CODE_BYTES:
        raise ProtocolError(
            "code-too-large",
            f"The script has {size:,} bytes of UTF-8; at most {MAX_CODE_BYTES:,} are taken. Put data into uploads.",
            "/code",
        )
    if not code.strip():
        raise ProtocolError("code-empty", "The script is empty.", "/code")
    return code


def _inputs(value: object) -> tuple[ComputationInput, ...]:
    items = _array(value, "/inputs")
    if len(items) > MAX_INPUTS:
        raise ProtocolError("too-many-inputs", f"At most {MAX_INPUTS} inputs are taken, not {len(items)}.", "/inputs")
    found: list[ComputationInput] = []
    assets: set[str] = set()
    variables: set[str] = set()
    for index, item in enumerate(items):
        pointer = f"/inputs/{index}"
        members = _object(item, pointer, _INPUT_FIELDS)
        asset = _string(members["asset_id"], f"{pointer}/asset_id")
        if not ASSET_ID.fullmatch(asset):
            raise ProtocolError("bad-asset-id", f"{_shown(asset)} is not an asset id: {ASSET_ID.pattern}", f"{pointer}/asset_id")
        name = check_variable_name(_string(members["variable_name"], f"{pointer}/variable_name"), f"{pointer}/variable_name")
        if asset in assets:
            raise ProtocolError("duplicate-asset", f"The asset {asset} is named twice; name it once.", f"{pointer}/asset_id")
        if name in variables:
            raise ProtocolError("duplicate-variable", f"The variable {_shown(name)} is named twice.", f"{pointer}/variable_name")
        assets.add(asset)
        variables.add(name)
        found.append(ComputationInput(asset, name))
    return tuple(found)


def _uploads(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong_type(value, "an object of name -> sha-256", "/uploads")
    if len(value) > MAX_UPLOADS:
        raise ProtocolError("bad-upload", f"At most {MAX_UPLOADS} uploads are taken, not {len(value)}.", "/uploads")
    for name, digest in value.items():
        pointer = f"/uploads/{strict_json.escape_pointer(name)}"
        if not UPLOAD_NAME.fullmatch(name):
            raise ProtocolError("bad-upload", f"{_shown(name)} is not an upload name: {UPLOAD_NAME.pattern}", pointer)
        if not SHA256_HEX.fullmatch(_string(digest, pointer)):
            raise ProtocolError("bad-upload", "An upload is named by its sha-256: 64 lower-case hex digits.", pointer)
    return dict(value)


def _product_version(value: object) -> str | None:
    if value is None:
        return None
    text = _string(value, "/product_version")
    if not HASH32.fullmatch(text):
        raise ProtocolError("bad-product-version", "product_version must be 0x and 64 lower-case hex digits.", "/product_version")
    return text


def _mode(value: object) -> Mode:
    if value is None:
        return "live"
    if (mode := _string(value, "/mode")) != "mock":
        raise ProtocolError("bad-mode", f'mode must be "mock" or be left out; {_shown(mode)} is not known.', "/mode")
    return "mock"


def _seed(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(value, "a whole number", "/seed")
    if not 0 <= value <= MAX_SEED:
        raise ProtocolError("bad-seed", f"seed must be from 0 to {MAX_SEED}; {value} is not.", "/seed")
    return value


def _object(value: object, pointer: str, fields: Mapping[str, bool]) -> JsonObject:
    if not isinstance(value, dict):
        raise _wrong_type(value, "an object", pointer)
    for name in value:
        if name not in fields:
            raise ProtocolError(
                "unknown-field",
                f"{_shown(name)} is not known here; known members: {', '.join(fields)}.",
                f"{pointer}/{strict_json.escape_pointer(name)}",
            )
    for name, required in fields.items():
        if required and name not in value:
            raise ProtocolError("missing-field", f"{name} is missing; add it.", f"{pointer}/{name}")
    return value


def _array(value: object, pointer: str) -> list[object]:
    if not isinstance(value, list):
        raise _wrong_type(value, "an array", pointer)
    return value


def _string(value: object, pointer: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, "a string", pointer)
    return value


def _wrong_type(value: object, wanted: str, pointer: str) -> ProtocolError:
    where = pointer or "The body"
    return ProtocolError("wrong-type", f"{where} must be {wanted}, it is {strict_json.TYPE_NAMES[type(value)]}.", pointer)


def _shown(text: str) -> str:
    """Write a name for a message, short and in ASCII: it may be hostile."""
    return ascii(text if len(text) <= 40 else text[:39] + "…")
