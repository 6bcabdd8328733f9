"""Route of uploads: bytes that a script needs beyond its 100 KB."""

from __future__ import annotations

from aiohttp import web

from pandacea.api.auth import authenticate_spender_head
from pandacea.api.middleware import LIMITS, body_chunks
from pandacea.api.node import NODE
from pandacea.api.openapi.operation import BYTES, Auth, operation, path_parameter
from pandacea.domain.ids import Address
from pandacea_sdk.protocol.ids import SHA256_HEX
from pandacea_sdk.protocol.problems import ProtocolError


@operation(
    "PUT",
    "/api/v1/privacy/uploads/{sha256}",
    "Put what a script needs beyond 100 KB; requests name it by its sha-256",
    Auth.SIGNED,
    {204: None},
    ("bad-upload", "upload-mismatch", "uploads-full", "disk-full"),
    request={BYTES: {"schema": {"type": "string", "format": "binary"}}},
    parameters=(path_parameter("sha256", {"type": "string", "pattern": f"^{SHA256_HEX.pattern}$"}),),
)
async def put_upload(request: web.Request) -> web.Response:
    """Store an upload; sending it again keeps it longer. A request names it in `uploads`; its script finds it in /workspace/in."""
    node = request.app[NODE]
    caller = await authenticate_spender_head(request)
    digest = request.match_info["sha256"]
    if not SHA256_HEX.fullmatch(digest):
        raise ProtocolError("bad-upload", "An upload's path ends in the sha-256 of its bytes: 64 lower-case hex digits.")
    if caller.body_sha256 is None or caller.body_sha256.hex() != digest:
        raise ProtocolError("upload-mismatch", "The signed Content-Digest is not the digest in the path.")
    await node.uploads.receive_upload(
        Address(caller.address), digest, request.content_length, body_chunks(request, request.app[LIMITS].upload_bytes)
    )
    return web.Response(status=204)
