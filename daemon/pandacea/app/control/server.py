"""The control socket: the operator's decisions while the node runs, over a Unix socket in the state folder (mode 0700).

One process writes: a command asks the running node to act. When none runs, the command takes the node's lock and acts itself
(`control.client`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import structlog

from pandacea.app.control.accounts import name_operator
from pandacea.app.control.ids import expand_id
from pandacea.app.control.leases import LeaseControl
from pandacea.app.control.products import ProductControl
from pandacea.app.control.replays import ReplayControl
from pandacea.codecheck.review import ChildCodeReviewer
from pandacea.domain.audit_entries import BY_OPERATOR
from pandacea.domain.code_approval import CodeRecord, CodeState
from pandacea.domain.job import Job, JobState
from pandacea.domain.limits import MIB
from pandacea.domain.params_schema import count_free_bytes
from pandacea.errors import DaemonError, Refused
from pandacea.flows import approve_code
from pandacea.flows.ports import Clock
from pandacea.flows.release import (
    ReleasePorts,
    digest_result,
    list_held,
    load_result,
    refuse_result,
    release_result,
    write_output_file,
)
from pandacea.flows.unit_of_work import HeldRow
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject

log = structlog.get_logger(__name__)

SOCKET_NAME: Final = "desk.sock"
"""File name in the state folder. Commands and nodes of other versions know it: it stays."""
MAX_LINE_BYTES: Final = 16 * MIB
"""Bytes of one request or answer: one line of JSON each."""
SHOWN_OUTPUT_BYTES: Final = 65_536
"""Bytes of a held result's output in the answer of `results show`; the whole of it is in a file that the answer names."""

Arguments = JsonMapping
"""Arguments of a verb, from JSON."""


class ControlServer:
    """Carries out verbs such as `results list`; every answer is JSON."""

    def __init__(
        self,
        ports: ReleasePorts,
        clock: Clock,
        products: ProductControl,
        leases: LeaseControl,
        replays: ReplayControl | None = None,
    ) -> None:
        """Act through the flows, in this process."""
        self._ports = ports
        self._database = ports.database
        self._clock = clock
        self._reviewer = ChildCodeReviewer()
        self._verbs: dict[str, Callable[[Arguments], Awaitable[JsonObject]]] = {
            "results list": self._list_results,
            "results show": self._describe_result,
            "results release": self._release_result,
            "results refuse": self._refuse_result,
            "code list": self._list_code,
            "code show": self._describe_code,
            "code approve": lambda arguments: self._decide_code(arguments, CodeState.APPROVED),
            "code reject": lambda arguments: self._decide_code(arguments, CodeState.REJECTED),
            "products list": products.list_products,
            "products show": products.describe_product,
            "products reload": products.reload_products,
            "replay": (replays or ReplayControl()).replay,
            "leases show": leases.describe_lease,
            "leases contested": leases.describe_contested,
            "leases acknowledge": leases.acknowledge_lease,
            "leases reread": leases.reread_leases,
            "leases approve": leases.approve_lease,
            "leases refuse": leases.cancel_lease,
            "leases cancel": leases.cancel_lease,
        }

    async def handle(self, verb: str, arguments: Arguments) -> JsonObject:
        """Carry out one verb.

        Raises:
            Refused: the verb is not known, or it cannot be done as asked.
        """
        handler = self._verbs.get(verb)
        if handler is None:
            raise Refused(f"The node does not know {verb!r}; it may be older than this command.")
        return await handler(arguments)

    async def _list_results(self, _arguments: Arguments) -> JsonObject:
        return {"results": [_job_row(job) for job in await list_held(self._ports)]}

    async def _describe_result(self, arguments: Arguments) -> JsonObject:
        job, artifacts = await load_result(await self._held_id(arguments), self._ports)
        folder = self._ports.results.path_of(job.computation_id)
        file = await write_output_file(job, self._ports) if job.state is JobState.HELD else None
        seen = await digest_result(job, artifacts, self._ports) if job.state is JobState.HELD else None
        return _job_row(job) | {
            "code": job.code,
            "params": job.params,
            "inputs": job.inputs,
            "detail": job.detail,
            "error": job.error,
            "output_bytes": len(job.output),
            "output": base64.b64encode(job.output[:SHOWN_OUTPUT_BYTES]).decode(),
            "output_file": None if file is None else str(file),
            "seen": seen,
            "artifacts": [{"name": item.name, "size": item.size, "file": str(folder / item.file)} for item in artifacts],
        }

    async def _release_result(self, arguments: Arguments) -> JsonObject:
        computation_id, seen = await self._held_id(arguments), str(arguments.get("seen") or "")
        if not seen:
            raise Refused(
                f"Look at it first: `pandacea results show {computation_id}` ends with the line that releases what it showed."
            )
        job = await release_result(computation_id, self._ports, seen_digest=seen, by=_account_of(arguments))
        log.info("result.released", computation_id=job.computation_id, charge=job.charge.value)
        return {"computation_id": job.computation_id, "state": job.state.value}

    async def _refuse_result(self, arguments: Arguments) -> JsonObject:
        job = await refuse_result(
            await self._held_id(arguments), str(arguments.get("reason") or ""), self._ports, by=_account_of(arguments)
        )
        log.info("result.refused", computation_id=job.computation_id)
        return {"computation_id": job.computation_id, "state": job.state.value}

    async def _held_id(self, arguments: Arguments) -> str:
        return expand_id(str(arguments["id"]), [job.computation_id for job in await list_held(self._ports)])

    async def _code_id(self, arguments: Arguments) -> str:
        known = [record.code_id for record in await approve_code.list_submissions(self._database)]
        return expand_id(str(arguments["id"]), known)

    async def _list_code(self, arguments: Arguments) -> JsonObject:
        state = None if arguments.get("all") else CodeState.PENDING
        return {"scripts": [_code_row(record) for record in await approve_code.list_submissions(self._database, state)]}

    async def _describe_code(self, arguments: Arguments) -> JsonObject:
        record = await approve_code.find_submission(await self._code_id(arguments), self._database)
        warnings = await self._reviewer.review_code(record.code)
        covered = {
            "code": record.code,
            "inputs": dict(record.inputs),
            "uploads": list(record.uploads),
            "params_schema": record.params_schema,
            "params_free_bytes": count_free_bytes(record.params_schema),
        }
        return _code_row(record) | covered | {"warnings": [{"line": warning.line, "why": warning.reason} for warning in warnings]}

    async def _decide_code(self, arguments: Arguments, state: CodeState) -> JsonObject:
        code_id, reason = await self._code_id(arguments), str(arguments.get("reason") or "")
        record = await approve_code.decide_code(code_id, state, reason, self._database, self._clock, by=_account_of(arguments))
        log.info("code.decided", code_id=record.code_id, state=state.value)
        return _code_row(record)


def _account_of(arguments: Arguments) -> str:
    return str(arguments.get("by") or BY_OPERATOR)


def _peer_account(writer: asyncio.StreamWriter) -> str:
    """Return the account of the process at the other end, as the kernel names it: the audit log does not take its word for it."""
    packed = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return name_operator(struct.unpack("3i", packed)[1])


def _job_row(job: Job | HeldRow) -> JsonObject:
    return {
        "computation_id": job.computation_id,
        "state": job.state.value,
        "product_id": job.product_id,
        "spender": job.spender,
        "lease_id": job.lease_id,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "failure": job.failure,
        "stored_bytes": job.stored_bytes,
    }


def _code_row(record: CodeRecord) -> JsonObject:
    return {
        "code_id": record.code_id,
        "product_id": record.product_id,
        "state": record.state.value,
        "reason": record.reason,
        "submitter": record.submitter,
        "has_lease": record.known,
        "note": record.note,
        "bytes": len(record.code.encode()),
        "created_at": record.created_at,
    }


async def serve_control_socket(server: ControlServer, state_dir: Path, stack: AsyncExitStack) -> None:
    """Listen on the state folder's socket until `stack` unwinds. Whoever may enter the folder may decide."""

    async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            try:
                asked = {**request.get("asked", {}), "by": _peer_account(writer)}
                reply = {"answer": await server.handle(str(request["verb"]), asked)}
            except DaemonError as problem:
                reply = {"problem": {"code": problem.code, "detail": problem.detail}}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except (ValueError, KeyError, AttributeError, ConnectionError) as problem:
            log.warning("control.request_unreadable", reason=repr(problem))
        finally:
            writer.close()

    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, folder)
    (state_dir / SOCKET_NAME).unlink(missing_ok=True)  # left by a node that was killed: this one holds the lock
    # Through the folder's descriptor: a socket's path may have 107 bytes, a state folder's may have more.
    listener = await asyncio.start_unix_server(serve_connection, f"/proc/self/fd/{folder}/{SOCKET_NAME}", limit=MAX_LINE_BYTES)
    (state_dir / SOCKET_NAME).chmod(0o600)

    async def close() -> None:
        listener.close()
        await listener.wait_closed()
        (state_dir / SOCKET_NAME).unlink(missing_ok=True)

    stack.push_async_callback(close)
