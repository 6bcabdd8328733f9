"""Routes of submitted code: scripts for products that run approved code only."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from pandacea.api.auth import authenticate_anyone
from pandacea.api.middleware import USAGE, read_body, require_json
from pandacea.api.node import NODE
from pandacea.api.openapi.operation import HASH_SCHEMA, Auth, json_request, operation, path_parameter
from pandacea.domain.code_approval import CodeRecord, CodeState, CodeSubmission
from pandacea.domain.ids import HASH32, PRODUCT_ID, Address, ProductId
from pandacea.domain.params_schema import NO_PARAMS
from pandacea.errors import ProblemError
from pandacea.flows.approve_code import NOTE_CHARACTERS, find_submission, submit_code
from pandacea_sdk.protocol import problems, responses, strict_json
from pandacea_sdk.protocol.execute_request import UPLOAD_NAME, check_execute_request
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.limits import MAX_UPLOADS
from pandacea_sdk.protocol.problems import ProtocolError

ROUTE: Final = "/api/v1/privacy/code"

_ANY_LEASE: Final = "0x" + "0" * 64
"""In the place of the lease under which the script will run, which is not known yet."""
_REQUIRED: Final = ("product_id", "code", "inputs")
_FIELDS: Final = (*_REQUIRED, "uploads", "params_schema", "note")


@operation(
    "POST",
    ROUTE,
    "Hand in a script for the Earner's approval, before paying for a lease",
    Auth.SIGNED,
    {202: responses.CodeAnswer},
    (
        *problems.BODY_PROBLEMS,
        *problems.CODE_PROBLEMS,
        "product-unknown",
        "asset-outside-product",
        "unsupported-media-type",
    ),
    request=json_request("CodeRequest"),
)
async def post_code(request: web.Request) -> web.Response:
    """Accept a script for the Earner's review, before its sender pays for a lease."""
    node = request.app[NODE]
    caller = await authenticate_anyone(request)
    require_json(request)
    if not node.leases.knows_spender(Address(caller.address)):
        node.rates.scripts.acquire(request[USAGE].peer)
    submission = await submit_code(read_submission(await read_body(request)), Address(caller.address), node.approve)
    location = f"{ROUTE}/{submission.code_id}"
    return web.json_response(_answer(submission) | {"location": location}, status=202, headers={"Location": location})


@operation(
    "GET",
    ROUTE + "/{code_id}",
    "Where a handed-in script stands, and the reason of a refusal",
    Auth.SIGNED,
    {200: responses.CodeAnswer},
    ("code-unknown",),
    parameters=(path_parameter("code_id", HASH_SCHEMA),),
)
async def get_code_state(request: web.Request) -> web.Response:
    """Answer with the Earner's decision and its reason, to whoever knows the id of script, inputs, uploads and params schema."""
    node = request.app[NODE]
    await authenticate_anyone(request)
    code_id = request.match_info["code_id"]
    if not HASH32.fullmatch(code_id):
        raise ProblemError(
            "code-unknown", "A code id is 0x and 64 lower-case hex digits, as POST /api/v1/privacy/code answered it."
        )
    return web.json_response(_answer(await find_submission(code_id, node.database)))


def _answer(submission: CodeRecord) -> JsonObject:
    answer: JsonObject = {
        "code_id": submission.code_id,
        "product_id": submission.product_id,
        "code_sha256": submission.code_sha256,
        "status": submission.state.value,
    }
    if submission.state is not CodeState.PENDING and submission.reason:
        answer["reason"] = submission.reason
    return answer


def read_submission(raw: bytes) -> CodeSubmission:
    """Read the body of a submission.

    Raises:
        ProtocolError: for the first fault found, with its code and a JSON pointer to the field.
    """
    body = strict_json.parse_json(raw)
    if not isinstance(body, dict):
        raise ProtocolError("wrong-type", "The body must be an object.", "")
    for name in body:
        if name not in _FIELDS:
            raise ProtocolError("unknown-field", f"Known here: {', '.join(_FIELDS)}.", f"/{strict_json.escape_pointer(name)}")
    for name in _REQUIRED:
        if name not in body:
            raise ProtocolError("missing-field", f"{name} is missing; add it.", f"/{name}")
    product_id = _text(body, "product_id")
    if not PRODUCT_ID.fullmatch(product_id):
        raise ProtocolError("bad-product-id", "product_id is not a product id.", "/product_id")
    # Script and inputs have the form of an execute request, so its reader checks them.
    asked = check_execute_request({"lease_id": _ANY_LEASE, "code": body["code"], "inputs": body["inputs"]})
    schema = body.get("params_schema", NO_PARAMS)
    if not isinstance(schema, dict):
        raise ProtocolError("wrong-type", "params_schema must be an object.", "/params_schema")
    note = _text(body, "note") if "note" in body else ""
    if len(note) > NOTE_CHARACTERS:
        raise ProtocolError("note-too-long", f"A note may have {NOTE_CHARACTERS} characters.", "/note")
    inputs = {item.variable_name: item.asset_id for item in asked.inputs}
    return CodeSubmission(ProductId(product_id), asked.code, inputs, _uploads(body.get("uploads", [])), schema, note)


def _text(body: JsonObject, name: str) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise ProtocolError("wrong-type", f"{name} must be a string.", f"/{name}")
    return value


def _uploads(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ProtocolError("wrong-type", "uploads must be an array of names.", "/uploads")
    if len(value) > MAX_UPLOADS or len(set(map(str, value))) != len(value):
        raise ProtocolError("bad-upload", f"At most {MAX_UPLOADS} uploads are taken, each once.", "/uploads")
    for index, name in enumerate(value):
        if not isinstance(name, str) or not UPLOAD_NAME.fullmatch(name):
            raise ProtocolError("bad-upload", f"An upload name is like {UPLOAD_NAME.pattern}", f"/uploads/{index}")
    return value
