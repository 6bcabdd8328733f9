"""The control socket's verb `replay`: run a kept computation again and say what repeated."""

from __future__ import annotations

from dataclasses import asdict

from pandacea.app.control.ids import expand_id
from pandacea.domain.audit_entries import BY_OPERATOR
from pandacea.domain.job import JobState
from pandacea.errors import Refused
from pandacea.flows.replay import ReplayPorts, replay_computation
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject


class ReplayControl:
    """Replays computations in the running node's sandbox."""

    def __init__(self, ports: ReplayPorts | None = None) -> None:
        """`ports`: None where no node runs, and so no sandbox is open."""
        self._ports = ports

    async def replay(self, arguments: JsonMapping) -> JsonObject:
        """Carry out the verb.

        Raises:
            Refused: no node runs, or the computation has no signed result.
        """
        if self._ports is None:
            raise Refused("A replay needs the running node and its sandbox. Start it: pandacea run")
        async with self._ports.database.read_session() as session:
            known = await session.jobs.list_in_state(JobState.COMPLETED, JobState.FAILED, JobState.HELD)
        computation_id = expand_id(str(arguments["id"]), known)
        report = await replay_computation(computation_id, self._ports, by=str(arguments.get("by") or BY_OPERATOR))
        return {
            "computation_id": computation_id,
            "ran": report.ran,
            "equal": report.is_equal,
            "result_hash": report.job.result_hash,
            "differences": [asdict(one) for one in report.differences],
        }
