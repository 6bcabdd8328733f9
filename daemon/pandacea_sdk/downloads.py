"""Fetch artifacts to files: hashed while they arrive, continued after a break, under their final name only when they are right."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from pandacea_sdk.errors import NodeError, NodeUnavailable, UntrustedResult
from pandacea_sdk.node import NodeConnection
from pandacea_sdk.transport import StreamedReply

MAX_BREAKS: Final = 5
"""Breaks in a row without a byte between them, after which a download ends."""
BREAK_SECONDS: Final = 120.0
"""The longest pause between two tries that a node may ask for."""
PART_SUFFIX: Final = ".part"


@dataclass(frozen=True, slots=True)
class RemoteArtifact:
    """An artifact on a node. `sha256` None: of a rehearsal, for which nobody signs."""

    computation_id: str
    name: str
    size: int
    sha256: str | None


async def download_artifact(node: NodeConnection, artifact: RemoteArtifact, file: Path) -> None:
    """Fetch one artifact into `file`, which comes to be when the last byte is there and the hash is right.

    Raises:
        UntrustedResult: `bytes-mismatch`: more or other bytes than the manifest states. Nothing is kept.
        NodeUnavailable: the connection broke too often.
        PandaceaError: as the node refuses.
    """
    part = file.with_name(file.name + PART_SUFFIX)
    digest, breaks = hashlib.sha256(), 0
    try:
        with part.open("xb") as out:
            while True:
                before = out.tell()
                try:
                    await _fetch_rest(node, artifact, out, digest)
                    break
                except NodeUnavailable as error:
                    breaks = breaks + 1 if out.tell() == before else 0
                    if breaks >= MAX_BREAKS:
                        raise
                    pause = error.retry_after if error.retry_after is not None else 0.2 * 2**breaks
                    await asyncio.sleep(min(pause, BREAK_SECONDS))
        if artifact.sha256 is not None and digest.hexdigest() != artifact.sha256:
            raise _mismatch(artifact, "they have another sha-256 than the manifest states")
        part.replace(file)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


async def _fetch_rest(node: NodeConnection, artifact: RemoteArtifact, out: BinaryIO, digest: Any) -> None:
    """Append what is still missing of an artifact."""
    start = out.tell()
    target = f"/api/v1/privacy/results/{quote(artifact.computation_id, safe='')}/artifacts/{quote(artifact.name)}"
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start == artifact.size and start:
        return
    async with node.transport.open_stream(target, chain_id=await node.chain_id(), headers=headers) as reply:
        if start:
            _check_continuation(reply, artifact, start)
        async for piece in reply.pieces:
            if out.tell() + len(piece) > artifact.size:
                raise _mismatch(artifact, f"they are more than the {artifact.size:,} stated")
            digest.update(piece)
            out.write(piece)
    if out.tell() < artifact.size:
        raise NodeUnavailable("no-answer", f"The artifact {artifact.name!a} ended after {out.tell():,} of {artifact.size:,} bytes.")


def _check_continuation(reply: StreamedReply, artifact: RemoteArtifact, start: int) -> None:
    expected = f"bytes {start}-{artifact.size - 1}/{artifact.size}"
    if reply.status != 206 or reply.headers.get("Content-Range") != expected:
        raise NodeError(
            "bad-answer", f"The node does not continue the artifact {artifact.name!a} at byte {start:,}.", status=reply.status
        )


def _mismatch(artifact: RemoteArtifact, why: str) -> UntrustedResult:
    return UntrustedResult(
        "bytes-mismatch", f"The bytes of the artifact {artifact.name!a} cannot be trusted: {why}. None were kept; ask the Earner."
    )
