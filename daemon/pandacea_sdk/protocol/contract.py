"""The LeaseAgreement as bytes: calls, answers, errors and events by the checked-in ABI. No sockets.

Addresses come out in lower-case hex, 32-byte values as `0x` + 64 lower-case hex digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import is_checksum_address
from eth_utils.crypto import keccak

_ERROR_STRING: Final = bytes.fromhex("08c379a0")  # Error(string)
_PANIC: Final = bytes.fromhex("4e487b71")  # Panic(uint256)
_SELECTOR_BYTES: Final = 4
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
_HEX: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


class LeaseStatus(StrEnum):
    """Where a lease stands, in the order of the contract's `Status`; from FINALIZED on nothing changes any more."""

    NONE = "none"
    CREATED = "created"
    APPROVED = "approved"
    EXECUTED = "executed"
    DISPUTED = "disputed"
    FINALIZED = "finalized"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"
    SETTLED = "settled"

    @classmethod
    def from_chain(cls, number: int) -> LeaseStatus:
        """From the number the contract uses; a `ValueError` for one it does not."""
        members = list(cls)
        if number >= len(members):
            raise ValueError(f"the contract has no status {number}")
        return members[number]


@dataclass(frozen=True, slots=True)
class Revert:
    """Why a call was undone: the error's name, its values by parameter name, and what it means."""

    name: str
    values: Mapping[str, Any]
    notice: str

    def __str__(self) -> str:
        """`TooLate(leaseId=0x…, until=17): too late …`."""
        values = ", ".join(f"{name}={value}" for name, value in self.values.items())
        return f"{self.name}({values}): {self.notice}" if self.notice else f"{self.name}({values})"


@dataclass(frozen=True, slots=True)
class ContractEvent:
    """One log of the contract, decoded: its name and its values by parameter name."""

    name: str
    values: Mapping[str, Any]


class BadValueError(ValueError):
    """A value that the contract has no place for, named with what is needed instead. Nothing is padded, cut or rounded to fit."""


class ContractAbi:
    """One artifact of `contracts/`: what can be called, and how its bytes read."""

    def __init__(self, artifact: Mapping[str, Any]) -> None:
        """`artifact`: as `contracts/compile.js` writes it; without code for a contract we do not deploy."""
        self.abi: list[dict[str, Any]] = artifact["abi"]
        self.bytecode: str | None = artifact.get("bytecode")
        self.runtime_code_hash: str | None = artifact.get("runtimeCodeHash")
        """keccak256 of the deployed code: the same for every deployment, for there are no immutables."""
        self._notices: Mapping[str, str] = artifact.get("errorNotices", {})
        self._functions: dict[str, dict[str, Any]] = {abi_signature(item): item for item in self.abi if item["type"] == "function"}
        self._errors = {function_selector(abi_signature(item)): item for item in self.abi if item["type"] == "error"}
        self._events = {keccak(text=abi_signature(item)): item for item in self.abi if item["type"] == "event"}

    def encode_call(self, name: str, *values: Any) -> bytes:
        """Calldata of a function, by its name, or by its whole signature where the name is overloaded.

        Raises:
            BadValueError: a value is not of its parameter's type: another length, no hex, no whole number, out of range.
        """
        item = self._function(name)
        return function_selector(abi_signature(item)) + _encoded(item["name"], item["inputs"], values)

    def decode_result(self, name: str, data: bytes) -> Any:
        """What a function returned: one value, a mapping for a struct, or a tuple of several.

        Raises:
            ValueError: the bytes are not an answer of this function.
        """
        outputs = self._function(name)["outputs"]
        found = _decode([canonical_type(one) for one in outputs], data)
        read = [_outward(parameter, value) for parameter, value in zip(outputs, found, strict=True)]
        return read[0] if len(read) == 1 else tuple(read)

    def encode_creation(self, *values: Any) -> bytes:
        """The code of a transaction that deploys the contract with these constructor arguments.

        Raises:
            BadValueError: as `call`.
        """
        if self.bytecode is None:
            raise ValueError("this artifact has no bytecode: it is only read, never deployed")
        inputs = [one for item in self.abi if item["type"] == "constructor" for one in item["inputs"]]
        return bytes.fromhex(self.bytecode[2:]) + _encoded("the constructor", inputs, values)

    def decode_revert(self, data: bytes) -> Revert:
        """Read revert data; what no ABI names becomes `Unknown` with its bytes."""
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
        return Revert("Unknown", {"data": "0x" + data.hex()}, "" if data else "the call was undone without a reason")

    def decode_event(self, topics: Sequence[bytes], data: bytes) -> ContractEvent | None:
        """Read a log; None when it is not an event of this ABI, or not shaped like one."""
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
        """topic0 of an event."""
        return next("0x" + topic.hex() for topic, item in self._events.items() if item["name"] == name)

    def error_selector(self, name: str) -> str:
        """The first four bytes of an error's hash: what CommitmentRefused names as its reason."""
        return next("0x" + head.hex() for head, item in self._errors.items() if item["name"] == name)

    def _function(self, name: str) -> dict[str, Any]:
        whole = "(" in name
        found = {text: item for text, item in self._functions.items() if (text if whole else item["name"]) == name}
        if len(found) != 1:
            raise ValueError(f"{name} names {len(found)} functions of this contract: {', '.join(found) or 'none'}")
        return next(iter(found.values()))


@cache
def lease_agreement() -> ContractAbi:
    """The contract of this version."""
    return _load("LeaseAgreement")


@cache
def lease_agreement_v0() -> ContractAbi:
    """The first version, under which leases exist: read, never deployed."""
    return _load("LeaseAgreementV0")


def _load(name: str) -> ContractAbi:
    text = files("pandacea_sdk.protocol").joinpath("abi", f"{name}.json").read_text(encoding="utf-8")
    return ContractAbi(json.loads(text))


def hash_product_id(product_id: str) -> str:
    """What stands for a product on-chain: keccak256 of its id in UTF-8."""
    return "0x" + keccak(text=product_id).hex()


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
    """The id of a lease, from its terms: keccak256(abi.encode(...)). `price` in wei, `expires_at` in Unix seconds.

    Raises:
        BadValueError: as `ContractAbi.call`.
    """
    values = (chain_id, contract, spender, earner, data_product_id, price, expires_at, max_computations, arbiter, nonce)
    return "0x" + keccak(_encoded("a lease's id", _TERMS, values)).hex()


_TERMS: Final = [
    {"name": name, "type": kind}
    for name, kind in (
        ("chain_id", "uint256"),
        ("contract", "address"),
        ("spender", "address"),
        ("earner", "address"),
        ("data_product_id", "bytes32"),
        ("price", "uint256"),
        ("expires_at", "uint64"),
        ("max_computations", "uint32"),
        ("arbiter", "address"),
        ("nonce", "uint256"),
    )
]


def check_address(value: Any, what: str = "the address") -> str:
    """An address as it is encoded; a mixed-case one must have the capitals of its checksum (EIP-55), which catches most slips.

    Raises:
        BadValueError: it is no address.
    """
    if not isinstance(value, str) or _ADDRESS.fullmatch(value) is None:
        raise BadValueError(f"{what} is {_shown(value)}: an address is 0x and 40 hex digits")
    digits = value[2:]
    if digits not in {digits.lower(), digits.upper()} and not is_checksum_address(value):
        raise BadValueError(f"{what} is {value}, whose capitals are not those of its checksum (EIP-55): a digit may be wrong")
    return value.lower()


def check_number(value: Any, bits: int, what: str) -> int:
    """A whole number of so many bits, not negative.

    Raises:
        BadValueError: it is none; a float is never rounded.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadValueError(f"{what} is {_shown(value)}: a whole number (int) is needed, such as 10**16")
    if not 0 <= value < 2**bits:
        raise BadValueError(f"{what} is {_shown(value)}: it must be at least 0 and below 2**{bits}")
    return value


def canonical_type(parameter: Mapping[str, Any]) -> str:
    """The canonical type of a parameter: tuples spelled out."""
    kind: str = parameter["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(canonical_type(one) for one in parameter['components'])}){kind.removeprefix('tuple')}"


def abi_signature(item: Mapping[str, Any]) -> str:
    """`name(type,type)`."""
    return f"{item['name']}({','.join(canonical_type(one) for one in item['inputs'])})"


def function_selector(text: str) -> bytes:
    """The first four bytes of a signature's hash."""
    return keccak(text=text)[:_SELECTOR_BYTES]


def _decode(types: list[str], data: bytes) -> tuple[Any, ...]:
    try:
        return tuple(decode(types, data))
    except (DecodingError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(f"these bytes are not ({','.join(types)}): {error}") from error


def _encoded(where: str, parameters: Sequence[Mapping[str, Any]], values: Sequence[Any]) -> bytes:
    if len(values) != len(parameters):
        names = ", ".join(one["name"] for one in parameters) or "nothing"
        raise BadValueError(f"{where} takes {len(parameters)} values ({names}), not {len(values)}")
    inward = [_inward(f"{one['name']} of {where}", one, value) for one, value in zip(parameters, values, strict=True)]
    return encode([canonical_type(one) for one in parameters], inward)


def _inward(what: str, parameter: Mapping[str, Any], value: Any) -> Any:
    """A value as `eth_abi` takes it, checked: by itself it pads short bytes in silence, and raises what names no argument."""
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


def _bytes(what: str, value: Any, size: int | None) -> bytes:
    if isinstance(value, bytes | bytearray):
        raw = bytes(value)
    elif isinstance(value, str) and _HEX.fullmatch(value):
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
        raise BadValueError(f"{what} holds half of a surrogate pair, which no text in UTF-8 does") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _outward(parameter: Mapping[str, Any], value: Any) -> Any:
    if parameter["type"].endswith("[]"):
        one = {**parameter, "type": parameter["type"].removesuffix("[]")}
        return [_outward(one, part) for part in value]
    if parameter["type"] == "tuple":
        return {one["name"]: _outward(one, part) for one, part in zip(parameter["components"], value, strict=True)}
    if parameter.get("internalType") == "enum Status":
        return LeaseStatus.from_chain(value).value
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value.lower() if parameter["type"] == "address" else value
