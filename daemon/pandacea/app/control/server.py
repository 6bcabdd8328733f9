"""The operator's desk: what the Earner decides while the node runs, over a Unix socket in the state folder (mode 0700).

One writer a process: the command asks the running node to act. When none runs, the command takes the node's lock and acts itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import structlog

from pandacea.app import factories
from pandacea.app.commands.leases import open_stored_leases
from pandacea.app.control.leases import LeaseControl
from pandacea.app.control.products import ProductControl
from pandacea.clock import SystemClock
from pandacea.codecheck.review import ChildCodeReviewer
from pandacea.config import Config
from pandacea.domain.code_approval import CodeRecord, CodeState
from pandacea.domain.job import Job, JobState
from pandacea.domain.limits import MIB
from pandacea.domain.params_schema import count_free_bytes
from pandacea.domain.printable import printable
from pandacea.errors import Broken, DaemonError, Refused
from pandacea.files.results import ResultStore
from pandacea.flows import approve_code
from pandacea.flows.live_output import JobNotifier
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
from pandacea.store.products import SqlProductStore
from pandacea.store.unit_of_work import SqlDatabase

log = structlog.get_logger(__name__)

SOCKET_NAME: Final = "desk.sock"
MAX_LINE_BYTES: Final = 16 * MIB
_SHORTEST_ID: Final = 6
"""Characters of an id, `0x` among them, that may stand for the whole."""
SHOWN_OUTPUT_BYTES: Final = 65_536
"""Bytes of a held result's output that `show` prints; the whole of it is in a file that `show` names."""

Arguments = Mapping[str, Any]


class ControlServer:
    """Answers by verb; every answer is JSON."""

    def __init__(self, ports: ReleasePorts, clock: Clock, products: ProductControl, leases: LeaseControl) -> None:
        """Act through the journeys, in this process."""
        self._ports = ports
        self._books = ports.database
        self._clock = clock
        self._reviewer = ChildCodeReviewer()
        self._verbs: dict[str, Callable[[Arguments], Awaitable[dict[str, Any]]]] = {
            "results list": self._results,
            "results show": self._result,
            "results release": self._release,
            "results refuse": self._refuse,
            "code list": self._scripts,
            "code show": self._script,
            "code approve": lambda asked: self._decide(asked, CodeState.APPROVED),
            "code reject": lambda asked: self._decide(asked, CodeState.REJECTED),
            "products list": products.list_products,
            "products show": products.describe_product,
            "products reload": products.reload_products,
            "leases show": leases.describe_lease,
            "leases acknowledge": leases.acknowledge_lease,
        }

    async def handle(self, verb: str, asked: Arguments) -> dict[str, Any]:
        """Do what is asked.

        Raises:
            Refused: it cannot be done as asked.
        """
        known = self._verbs.get(verb)
        if known is None:
            raise Refused(f"The node knows no {verb!r}; it may be older than this command.")
        return await known(asked)

    async def _results(self, _asked: Arguments) -> dict[str, Any]:
        return {"results": [_short(job) for job in await list_held(self._ports)]}

    async def _result(self, asked: Arguments) -> dict[str, Any]:
        job, artifacts = await load_result(await self._held_id(asked), self._ports)
        folder = self._ports.results.path_of(job.computation_id)
        file = await write_output_file(job, self._ports) if job.state is JobState.HELD else None
        seen = await digest_result(job, artifacts, self._ports) if job.state is JobState.HELD else None
        return _short(job) | {
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

    async def _release(self, asked: Arguments) -> dict[str, Any]:
        computation_id, seen = await self._held_id(asked), str(asked.get("seen") or "")
        if not seen:
            raise Refused(
                f"Look at it first: `pandacea results show {computation_id}` ends with the line that releases what it showed."
            )
        job = await release_result(computation_id, self._ports, seen_digest=seen)
        log.info("result.released", computation_id=job.computation_id, charge=job.charge.value)
        return {"computation_id": job.computation_id, "state": job.state.value}

    async def _refuse(self, asked: Arguments) -> dict[str, Any]:
        job = await refuse_result(await self._held_id(asked), str(asked.get("reason") or ""), self._ports)
        log.info("result.refused", computation_id=job.computation_id)
        return {"computation_id": job.computation_id, "state": job.state.value}

    async def _held_id(self, asked: Arguments) -> str:
        return _expand_id(str(asked["id"]), [job.computation_id for job in await list_held(self._ports)])

    async def _code_id(self, asked: Arguments) -> str:
        return _expand_id(str(asked["id"]), [one.code_id for one in await approve_code.list_submissions(self._books)])

    async def _scripts(self, asked: Arguments) -> dict[str, Any]:
        state = None if asked.get("all") else CodeState.PENDING
        return {"scripts": [_script(one) for one in await approve_code.list_submissions(self._books, state)]}

    async def _script(self, asked: Arguments) -> dict[str, Any]:
        found = await approve_code.find_submission(await self._code_id(asked), self._books)
        warnings = await self._reviewer.review_code(found.code)
        covered = {
            "code": found.code,
            "inputs": dict(found.inputs),
            "uploads": list(found.uploads),
            "params_schema": found.params_schema,
            "params_free_bytes": count_free_bytes(found.params_schema),
        }
        return _script(found) | covered | {"warnings": [{"line": one.line, "why": one.reason} for one in warnings]}

    async def _decide(self, asked: Arguments, state: CodeState) -> dict[str, Any]:
        code_id = await self._code_id(asked)
        found = await approve_code.decide_code(code_id, state, str(asked.get("reason") or ""), self._books, self._clock)
        log.info("code.decided", code_id=found.code_id, state=state.value)
        return _script(found)


def _expand_id(said: str, known: Sequence[str]) -> str:
    """The one id that begins so; what is said as it is, when it is whole or none begins so. Raises Refused: several do."""
    found = sorted({one for one in known if one.startswith(said.lower())}) if len(said) >= _SHORTEST_ID else []
    if len(found) > 1 and said not in found:
        raise Refused(f"{len(found)} ids begin with {printable(said, limit=80)}; say more of it, for example {found[0][:20]}.")
    return found[0] if len(found) == 1 else said


def _short(job: Job) -> dict[str, Any]:
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


def _script(one: CodeRecord) -> dict[str, Any]:
    return {
        "code_id": one.code_id,
        "product_id": one.product_id,
        "state": one.state.value,
        "reason": one.reason,
        "submitter": one.submitter,
        "has_lease": one.known,
        "note": one.note,
        "bytes": len(one.code.encode()),
        "created_at": one.created_at,
    }


async def serve_control_socket(desk: ControlServer, state_dir: Path, stack: AsyncExitStack) -> None:
    """Listen on the state folder's socket until the stack unwinds. Who may enter the folder may decide."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(await reader.readline())
            try:
                reply = {"answer": await desk.handle(str(asked["verb"]), asked.get("asked", {}))}
            except DaemonError as problem:
                reply = {"problem": {"code": problem.code, "detail": problem.detail}}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except (ValueError, KeyError, AttributeError, ConnectionError) as problem:
            log.warning("desk.not_understood", problem=repr(problem))
        finally:
            writer.close()

    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, folder)
    (state_dir / SOCKET_NAME).unlink(missing_ok=True)  # of a node that was killed: this one holds the lock
    # Through the folder's descriptor: a socket's path may have 107 bytes, a state folder's more.
    server = await asyncio.start_unix_server(serve_one, f"/proc/self/fd/{folder}/{SOCKET_NAME}", limit=MAX_LINE_BYTES)
    (state_dir / SOCKET_NAME).chmod(0o600)

    async def end() -> None:
        server.close()
        await server.wait_closed()
        (state_dir / SOCKET_NAME).unlink(missing_ok=True)

    stack.push_async_callback(end)


async def call_node(config: Config, verb: str, asked: Arguments) -> dict[str, Any]:
    """Ask the running node, or do it here when none runs.

    Raises:
        Refused: it cannot be done as asked.
        Broken: a node runs but does not answer.
    """
    state_dir = config.store.state_dir
    answer = await call_running_node(config, verb, asked)
    if answer is not None:
        return answer
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(factories.lock_state_dir(state_dir))
        db = await stack.enter_async_context(factories.open_database(config, exclusive=True))
        clock = SystemClock()
        book = SqlProductStore(db)
        products = ProductControl(book, config.privacy.data_dir)
        leases = LeaseControl(lambda: open_stored_leases(config, db), book, clock)
        return await ControlServer(
            make_release_ports(config, SqlDatabase(db, factories.delivery_channels(config)), JobNotifier()), clock, products, leases
        ).handle(verb, asked)


async def call_running_node(config: Config, verb: str, asked: Arguments) -> dict[str, Any] | None:
    """Ask the running node; None when none runs.

    Raises:
        Refused: it cannot be done as asked.
        Broken: a node runs but does not answer.
    """
    try:
        return await _ask_node(config.store.state_dir, verb, asked)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


def make_release_ports(config: Config, books: SqlDatabase, watch: JobNotifier) -> ReleasePorts:
    """What deciding on held results works with."""
    shelf = ResultStore(config.store.state_dir / "results", config.store.max_results_mb * MIB)
    return ReleasePorts(books, SystemClock(), shelf, watch, config.settlement.post_results, config.privacy.hold_seconds)


async def _ask_node(state_dir: Path, verb: str, asked: Arguments) -> dict[str, Any]:
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{SOCKET_NAME}", limit=MAX_LINE_BYTES)
    finally:
        os.close(folder)
    try:
        writer.write(json.dumps({"verb": verb, "asked": dict(asked)}).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise Broken("The node closed the connection without an answer; its log says why.")
    reply = json.loads(line)
    if "problem" in reply:
        raise Refused(reply["problem"]["detail"])
    answer: dict[str, Any] = reply["answer"]
    return answer
