"""Build a request from files on the Spender's machine, and check it as the node will."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pandacea_sdk.errors import error_from_protocol, usage_error
from pandacea_sdk.protocol.execute_request import ExecuteRequest, parse_execute_request
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.limits import MAX_CODE_BYTES
from pandacea_sdk.protocol.problems import ProtocolError

Inputs = Mapping[str, str] | Sequence[Mapping[str, str]]
"""`{variable: asset id}`, or `[{"asset_id": ..., "variable_name": ...}]` as a request carries it."""


def list_inputs(inputs: Inputs) -> list[dict[str, str]]:
    """Write inputs as a request carries them.

    Raises:
        UsageError: they have another shape.
    """
    if isinstance(inputs, Mapping):
        if set(inputs) == {"asset_id", "variable_name"}:
            return [dict(inputs)]
        return [{"asset_id": asset_id, "variable_name": variable} for variable, asset_id in inputs.items()]
    if isinstance(inputs, Sequence) and not isinstance(inputs, str) and all(isinstance(one, Mapping) for one in inputs):
        return [dict(one) for one in inputs]
    raise usage_error(
        f'inputs is {ascii(inputs)[:80]}: give {{"variable": "asset id"}}, such as {{"df": "patients"}}, '
        'or [{"asset_id": "patients", "variable_name": "df"}].'
    )


def make_request(
    lease_id: str,
    code: str,
    inputs: Inputs,
    params: Any,
    uploads: Mapping[str, bytes],
    product_version: str | None,
    mode: str | None,
) -> ExecuteRequest:
    """Make the request of a call's arguments; None: left out.

    Raises:
        PandaceaError: as `list_inputs` and `build_request`.
    """
    body: JsonObject = {"lease_id": lease_id, "code": code, "inputs": list_inputs(inputs)}
    optional = {"params": params, "product_version": product_version, "mode": mode}
    body |= {name: value for name, value in optional.items() if value is not None}
    if uploads:
        body["uploads"] = {name: hashlib.sha256(content).hexdigest() for name, content in uploads.items()}
    return build_request(body)


def build_request(body: JsonObject) -> ExecuteRequest:
    """Build the request from its body; what the node would refuse in its form is refused here.

    Raises:
        RequestError: with the node's own code and pointer.
    """
    try:
        request = parse_execute_request(encode_json(body))
        request.params_bytes()
    except ProtocolError as error:
        raise error_from_protocol(error) from None
    return request


def encode_json(body: Any) -> bytes:
    """Write a value as JSON in UTF-8.

    Raises:
        UsageError: it holds what JSON cannot carry.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise usage_error(f"This cannot be sent as JSON: {error}") from None


def read_script(path: str | os.PathLike[str]) -> str:
    """Read a script's text. Of a file that is too large only a little more than the limit is read; `build_request` refuses it.

    Raises:
        UsageError: the file cannot be read or is not UTF-8.
    """
    try:
        with Path(path).open("rb") as source:
            raw = source.read(MAX_CODE_BYTES + 1)
        return raw.decode("utf-8")
    except OSError as error:
        raise usage_error(f"The script {os.fspath(path)!a} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        if error.start >= MAX_CODE_BYTES - 4:  # cut inside a character: it is too large, which `build_request` says better
            return raw.decode("utf-8", "replace")
        raise usage_error(f"The script {os.fspath(path)!a} is not UTF-8: byte {error.start}.") from None


def read_content(content: bytes | str | os.PathLike[str]) -> bytes:
    """Return bytes as they are, or read them from a file.

    Raises:
        UsageError: the file cannot be read.
    """
    if isinstance(content, bytes):
        return content
    try:
        return Path(content).read_bytes()
    except OSError as error:
        raise usage_error(f"The upload {os.fspath(content)!a} cannot be read: {error.strerror}.") from None
