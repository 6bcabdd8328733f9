"""Encode calls of the LeaseAgreement and decode its results, errors and events, by the checked-in ABI. Opens no sockets.

Addresses come out in lower-case hex, 32-byte values as `0x` + 64 lower-case hex digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from pandacea_sdk.protocol.addresses import has_wrong_checksum
from pandacea_sdk.protocol.hashing import hash_abi_words, hex32, keccak256
from pandacea_sdk.protocol.ids import ADDRESS_ANY_CASE, HEX_BYTES, LeaseStatus
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject

_ERROR_STRING: Final = bytes.fromhex("08c379a0")  # Error(string)
_PANIC: Final = bytes.fromhex("4e487b71")  # Panic(uint256)
_SELECTOR_BYTES: Final = 4
_STATUSES: Final = ("none", *LeaseStatus)
"""The contract's `Status`, by its numbers."""


@dataclass(frozen=True, slots=True)
class Revert:
    """Why a call was reverted: the error's name, its values by parameter name, and its meaning from the contract's documentation."""

    name: str
    values: JsonMapping
    notice: str

    def __str__(self) -> str:
        """Write it as `TooLate(leaseId=0x…, until=17): too late …`."""
        values = ", ".join(f"{name}={value}" for name, value in self.values.items())
        return f"{self.name}({values}): {self.notice}" if self.notice else f"{self.name}({values})"


@dataclass(frozen=True, slots=True)
class ContractEvent:
    """One log of the contract, decoded: its name and its values by parameter name."""

    name: str
    values: JsonMapping


class BadValueError(ValueError):
    """A value does not fit its parameter; the message says what is needed. Nothing is padded, cut or rounded to fit."""


class ContractAbi:
    """Encoder and decoder for one compiled contract (an artifact of `contracts/`)."""

    def __init__(self, artifact: JsonMapping) -> None:
        """`artifact`: as `contracts/compile.js` writes it; it has no bytecode where the contract is not deployed from here."""
        self.abi: list[JsonObject] = artifact["abi"]
        self.bytecode: str | None = artifact.get("bytecode")
        self.runtime_code_hash: str | None = artifact.get("runtimeCodeHash")
        """keccak256 of the deployed code, in hex: the same for every deployment, as there are no immutables."""
        self._notices: Mapping[str, str] = artifact.get("errorNotices", {})
        self._functions: dict[str, JsonObject] = {abi_signature(item): item for item in self.abi if item["type"] == "function"}
        self._errors = {function_selector(abi_signature(item)): item for item in self.abi if item["type"] == "error"}
        self._events = {keccak256(abi_signature(item).encode()): item for item in self.abi if item["type"] == "event"}

    def encode_call(self, name: str, *values: object) -> bytes:
        """Encode a call of a function, given by its name, or by its whole signature where the name is overloaded.

        Raises:
            BadValueError: a value is not of its parameter's type: wrong length, not hex, not a whole number, out of range.
        """
        item = self._function(name)
        return function_selector(abi_signature(item)) + _encoded(item["name"], item["inputs"], values)

    def decode_result(self, name: str, data: bytes) -> Any:
        """Decode what a function returned: one value, a mapping for a struct, or a tuple of several.

        Raises:
            ValueError: the bytes are not an answer of this function.
        """
        outputs = self._function(name)["outputs"]
        found = _decode([canonical_type(one) for one in outputs], data)
        read = [_outward(parameter, value) for parameter, value in zip(outputs, found, strict=True)]
        return read[0] if len(read) == 1 else tuple(read)

    def encode_creation(self, *values: object) -> bytes:
        """Encode the data of a transaction that deploys the contract with these constructor arguments.

        Raises:
            BadValueError: as `encode_call`.
        """
        if self.bytecode is None:
            raise ValueError("this artifact has no bytecode: the contract is read here, never deployed")
        inputs = [one for item in self.abi if item["type"] == "constructor" for one in item["inputs"]]
        return bytes.fromhex(self.bytecode[2:]) + _encoded("the constructor", inputs, values)

    def decode_revert(self, data: bytes) -> Revert:
        """Decode revert data; an error that the ABI does not name becomes `Unknown` with its bytes."""
        head, body = data[:_SELECTOR_BYTES], data[_SELECTOR_BYTES:]
        try:
            if head == _ERROR_STRING:
                return Revert("Error", {"reason": _decode(["string"], body)[0]}, "")
            if head == _PANIC:
                return Revert(
                    "Panic", {"code": _decode(["uint256"], body)[0]}, "the contract's own arithmetic or bounds check failed"
                )
            item = self._errors.get(head)
            if item is not None:
                found = _decode([canonical_type(one) for one in item["inputs"]], body)
                values = {one["name"]: _outward(one, value) for one, value in zip(item["inputs"], found, strict=True)}
                return Revert(item["name"], values, self._notices.get(abi_signature(item), ""))
        except ValueError:
            pass  # named like an error, but not shaped like it: shown as bytes below
        return Revert("Unknown", {"data": "0x" + data.hex()}, "" if data else "the call was reverted without a reason")

    def decode_event(self, topics: Sequence[bytes], data: bytes) -> ContractEvent | None:
        """Decode a log; None when it is not an event of this ABI, or does not have its shape."""
        item = self._events.get(topics[0]) if topics else None
        if item is None:
            return None
        indexed = [one for one in item["inputs"] if one["indexed"]]
        plain = [one for one in item["inputs"] if not one["indexed"]]
        try:
            found = dict(zip((one["name"] for one in plain), _decode([canonical_type(one) for one in plain], data), strict=True))
            for parameter, topic in zip(indexed, topics[1:], strict=True):
                found[parameter["name"]] = _decode([canonical_type(parameter)], topic)[0]
        except ValueError:
            return None
        return ContractEvent(item["name"], {one["name"]: _outward(one, found[one["name"]]) for one in item["inputs"]})

    def event_topic(self, name: str) -> str:
        """Look up topic0 of an event by the event's name, in hex."""
        return next("0x" + topic.hex() for topic, item in self._events.items() if item["name"] == name)

    def error_selector(self, name: str) -> str:
        """The first four bytes of an error's hash: what CommitmentRefused names as its reason."""
        return next("0x" + head.hex() for head, item in self._errors.items() if item["name"] == name)

    def _function(self, name: str) -> JsonObject:
        whole = "(" in name
        found = {text: item for text, item in self._functions.items() if (text if whole else item["name"]) == name}
        if len(found) != 1:
            raise ValueError(f"{name} names {len(found)} functions of this contract: {', '.join(found) or 'none'}")
        return next(iter(found.values()))


@cache
def lease_agreement() -> ContractAbi:
    """Load the contract of this version."""
    return _load("LeaseAgreement")


@cache
def lease_agreement_v0() -> ContractAbi:
    """Load the first version of the contract, under which leases exist. It is read, never deployed."""
    return _load("LeaseAgreementV0")


def _load(name: str) -> ContractAbi:
    text = files("pandacea_sdk.protocol").joinpath("abi", f"{name}.json").read_text(encoding="utf-8")
    return ContractAbi(json.loads(text))


def hash_product_id(product_id: str) -> str:
    """Hash a product's id to what stands for it on the chain (`dataProductId`): keccak256 of its UTF-8."""
    return hex32(keccak256(product_id.encode()))


def derive_lease_id(
    *,
    chain_id: int,
    contract: str,
    spender: str,
    earner: str,
    data_product_id: str,
    price: int,
    expires_at: int,
    max_computations: int,
    arbiter: str,
    nonce: int,
) -> str:
    """Compute a lease's id from its terms: keccak256(abi.encode(...)). `price` in wei, `expires_at` in Unix seconds.

    Raises:
        BadValueError: a term is not of its type, or out of range.
    """
    return hash_abi_words(
        check_number(chain_id, 256, "chain_id"),
        check_address(contract, "contract"),
        check_address(spender, "spender"),
        check_address(earner, "earner"),
        _bytes("data_product_id", data_product_id, 32),
        check_number(price, 256, "price"),
        check_number(expires_at, 64, "expires_at"),
        check_number(max_computations, 32, "max_computations"),
        check_address(arbiter, "arbiter"),
        check_number(nonce, 256, "nonce"),
    )


def check_address(value: object, what: str = "the address") -> str:
    """Check an address and return it in lower case; a mixed-case one must fit its checksum (EIP-55), which catches most typing errors.

    Raises:
        BadValueError: it is not an address.
    """
    if not isinstance(value, str) or ADDRESS_ANY_CASE.fullmatch(value) is None:
        raise BadValueError(f"{what} is {_shown(value)}: an address is 0x and 40 hex digits")
    if has_wrong_checksum(value):
        raise BadValueError(f"{what} is {value}, whose capitals are not those of its checksum (EIP-55): a digit may be wrong")
    return value.lower()


def check_number(value: object, bits: int, what: str) -> int:
    """Check that a value is a whole number from 0 to 2**bits - 1 and return it.

    Raises:
        BadValueError: it is not; a float is never rounded.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadValueError(f"{what} is {_shown(value)}: a whole number (int) is needed, such as 10**16")
    if not 0 <= value < 2**bits:
        raise BadValueError(f"{what} is {_shown(value)}: it must be at least 0 and below 2**{bits}")
    return value


def canonical_type(parameter: JsonMapping) -> str:
    """Write the canonical type of a parameter, in which tuples are spelled out."""
    kind: str = parameter["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(canonical_type(one) for one in parameter['components'])}){kind.removeprefix('tuple')}"


def abi_signature(item: JsonMapping) -> str:
    """Write the signature of a function, error or event: `name(type,type)`."""
    return f"{item['name']}({','.join(canonical_type(one) for one in item['inputs'])})"


def function_selector(text: str) -> bytes:
    """Compute the selector of a signature: the first four bytes of its keccak256."""
    return keccak256(text.encode())[:_SELECTOR_BYTES]


def _decode(types: list[str], data: bytes) -> tuple[object, ...]:
    try:
        return tuple(decode(types, data))
    except (DecodingError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(f"these bytes are not ({','.join(types)}): {error}") from error


def _encoded(where: str, parameters: Sequence[JsonMapping], values: Sequence[object]) -> bytes:
    if len(values) != len(parameters):
        names = ", ".join(one["name"] for one in parameters) or "nothing"
        raise BadValueError(f"{where} takes {len(parameters)} values ({names}), not {len(values)}")
    inward = [_inward(f"{one['name']} of {where}", one, value) for one, value in zip(parameters, values, strict=True)]
    return encode([canonical_type(one) for one in parameters], inward)


def _inward(what: str, parameter: JsonMapping, value: object) -> object:
    """Check a value for `eth_abi`, which pads short bytes silently and whose errors do not name the argument."""
    kind: str = parameter["type"]
    if kind.endswith("[]"):
        if not isinstance(value, list | tuple):
            raise BadValueError(f"{what} is {_shown(value)}: a list is needed")
        one = {**parameter, "type": kind.removesuffix("[]")}
        return [_inward(f"item {number} of {what}", one, part) for number, part in enumerate(value)]
    if kind == "tuple":
        parts = parameter["components"]
        if not isinstance(value, list | tuple) or len(value) != len(parts):
            raise BadValueError(
                f"{what} is {_shown(value)}: {len(parts)} values are needed ({', '.join(one['name'] for one in parts)})"
            )
        return tuple(_inward(f"{one['name']} in {what}", one, part) for one, part in zip(parts, value, strict=True))
    if kind == "address":
        return check_address(value, what)
    if kind.startswith("uint"):
        return check_number(value, int(kind.removeprefix("uint")), what)
    if kind.startswith("bytes"):
        return _bytes(what, value, int(kind.removeprefix("bytes")) if kind != "bytes" else None)
    wanted: type = {"bool": bool, "string": str}[kind]
    if not isinstance(value, wanted):
        raise BadValueError(f"{what} is {_shown(value)}: a {kind} is needed")
    if isinstance(value, str) and not value.isascii():
        _utf8(what, value)
    return value


def _bytes(what: str, value: object, size: int | None) -> bytes:
    if isinstance(value, bytes | bytearray):
        raw = bytes(value)
    elif isinstance(value, str) and HEX_BYTES.fullmatch(value):
        raw = bytes.fromhex(value[2:])
    else:
        raise BadValueError(f"{what} is {_shown(value)}: {_needed(size)} are needed")
    if size is not None and len(raw) != size:
        raise BadValueError(f"{what} is {_shown(value)}, which is {len(raw)} bytes: {_needed(size)} are needed")
    return raw


def _needed(size: int | None) -> str:
    return "bytes, as 0x and hex digits," if size is None else f"{size} bytes, as 0x and {2 * size} hex digits,"


def _utf8(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadValueError(f"{what} holds half of a surrogate pair, which UTF-8 cannot carry") from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _outward(parameter: JsonMapping, value: Any) -> Any:
    if parameter["type"].endswith("[]"):
        one = {**parameter, "type": parameter["type"].removesuffix("[]")}
        return [_outward(one, part) for part in value]
    if parameter["type"] == "tuple":
        return {one["name"]: _outward(one, part) for one, part in zip(parameter["components"], value, strict=True)}
    if parameter.get("internalType") == "enum Status":
        return _status_name(value)
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value.lower() if parameter["type"] == "address" else value


def _status_name(number: int) -> str:
    if number >= len(_STATUSES):
        raise ValueError(f"the contract has no status {number}")
    return str(_STATUSES[number])
