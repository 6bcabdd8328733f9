"""Route of uploads: bytes that a script needs beyond its 100 KB."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from pandacea.api.auth import authenticate_spender, authenticate_spender_head
from pandacea.api.middleware import LIMITS, body_chunks
from pandacea.api.node import NODE
from pandacea.api.openapi.operation import BYTES, Auth, operation, path_parameter
from pandacea.domain.ids import Address
from pandacea.errors import ProblemError
from pandacea_sdk.protocol import responses
from pandacea_sdk.protocol.ids import SHA256_HEX
from pandacea_sdk.protocol.problems import ProtocolError

ROUTE: Final = "/api/v1/privacy/uploads/{sha256}"
_SHA256: Final = path_parameter("sha256", {"type": "string", "pattern": f"^{SHA256_HEX.pattern}$"})


@operation(
    "GET",
    ROUTE,
    "Whether an upload of the caller is here, and until when",
    Auth.SIGNED,
    {200: responses.UploadAnswer},
    ("bad-upload", "upload-unknown"),
    parameters=(_SHA256,),
)
async def get_upload(request: web.Request) -> web.Response:
    """Answer with size and time of an upload that the caller sent before; those of others look as if they were not there."""
    node = request.app[NODE]
    caller = Address((await authenticate_spender(request)).address)
    digest = _digest(request)
    found = await node.uploads.find_upload(caller, digest)
    if found is None:
        raise ProblemError("upload-unknown", "You have no such upload on this node (any more); send it with PUT.")
    return web.json_response({"sha256": digest, "size": found[0], "kept_until": int(found[1])})


@operation(
    "PUT",
    ROUTE,
    "Put what a script needs beyond 100 KB; requests name it by its sha-256",
    Auth.SIGNED,
    {204: None},
    ("bad-upload", "upload-mismatch", "uploads-full", "disk-full"),
    request={BYTES: {"schema": {"type": "string", "format": "binary"}}},
    parameters=(_SHA256,),
)
async def put_upload(request: web.Request) -> web.Response:
    """Store an upload; sending it again keeps it longer. A request names it in `uploads`; its script finds it in /workspace/in."""
    node = request.app[NODE]
    caller = await authenticate_spender_head(request)
    digest = _digest(request)
    if caller.body_sha256 is None or caller.body_sha256.hex() != digest:
        raise ProtocolError("upload-mismatch", "The signed Content-Digest is not the digest in the path.")
    await node.uploads.receive_upload(
        Address(caller.address), digest, request.content_length, body_chunks(request, request.app[LIMITS].upload_bytes)
    )
    return web.Response(status=204)


def _digest(request: web.Request) -> str:
    digest = request.match_info["sha256"]
    if not SHA256_HEX.fullmatch(digest):
        raise ProtocolError("bad-upload", "An upload's path ends in the sha-256 of its bytes: 64 lower-case hex digits.")
    return digest
