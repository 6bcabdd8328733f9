"""A handle on a computation: where it stands, its events, its end. `client.job(id)` makes it again after a restart."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from pandacea_sdk.computations import RESULTS_PATH, Computations
from pandacea_sdk.downloads import RemoteArtifact, download_artifact
from pandacea_sdk.errors import NodeError
from pandacea_sdk.event_stream import JobEvent, stream_events
from pandacea_sdk.node import NodeConnection, parse_object
from pandacea_sdk.results import ArtifactFiles, RunResult
from pandacea_sdk.scripts import Script


class AsyncJobHandle:
    """A computation on a node, by its id."""

    def __init__(
        self, node: NodeConnection, computations: Computations, computation_id: str, mode: str | None, script: Script | None
    ) -> None:
        """`mode`: `mock` for a rehearsal; `script`: what was sent, None where another process sent it."""
        self._node, self._computations = node, computations
        self._id, self._mode, self._script = computation_id, mode, script

    @property
    def id(self) -> str:
        """The computation's id, `0x` and 64 hex digits: keep it, and `client.job(id)` finds the computation again."""
        return self._id

    async def status(self) -> str:
        """Fetch its state: pending, running, held, completed, failed or cancelled."""
        target = RESULTS_PATH + quote(self._id, safe="") + "?artifacts=none"
        stated = parse_object(await self._node.send_signed("GET", target)).get("status")
        if not isinstance(stated, str):
            raise NodeError("bad-answer", "The node's answer names no state.")
        return stated

    async def wait(self, timeout: float = 3600.0) -> RunResult:
        """Wait until it has ended, fetch its artifacts to files, and verify all of it.

        Args:
            timeout: seconds until the end of the computation; the artifacts may take longer.

        Raises:
            StillRunning: it has not ended; nothing is lost, wait again.
            JobError: it has no result.
            UntrustedResult: bytes, manifest, receipt or chain contradict each other.
        """
        answer = await self._computations.wait_for_record(self._id, self._mode, timeout)
        if not isinstance(answer.get("success"), bool) or not isinstance(answer["results"].get("output"), str):
            raise NodeError("bad-answer", "The node's answer is not a result: success or output is missing.")
        manifest = answer.get("manifest")
        folder = Path(tempfile.mkdtemp(prefix="pandacea-"))
        try:
            files = {}
            for number, (name, size) in enumerate(answer["results"]["artifact_sizes"].items()):
                sha256 = str(manifest["artifacts"][name].get("sha256")) if isinstance(manifest, dict) else None
                files[name] = folder / str(number)
                await download_artifact(self._node, RemoteArtifact(self._id, name, _size(size), sha256), files[name])
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        check = None if manifest is None else self._computations.verifier(self._id, await self._node.chain_id())
        return RunResult(answer, ArtifactFiles(folder, files), self._script, check)

    async def cancel(self) -> None:
        """Cancel it: while it waits it is not charged, while it runs its sandbox is destroyed."""
        await self._node.send_signed("DELETE", RESULTS_PATH + quote(self._id, safe=""))

    async def stream(self) -> AsyncIterator[JobEvent]:
        """Iterate over its states, progress and output as they come, until it has ended; a broken connection is continued.

        What of progress and output is shown is the product's rule `live_output`.
        """
        async for event in stream_events(self._node, self._id):
            yield event


def _size(stated: object) -> int:
    if not isinstance(stated, int) or isinstance(stated, bool) or stated < 0:
        raise NodeError("bad-answer", "The node states a size that is not a number of bytes.")
    return stated
