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

from pandacea.app import parts
from pandacea.app.lease_desk import LeaseDesk
from pandacea.app.leases import kept_records
from pandacea.app.product_desk import ProductDesk
from pandacea.catalogue.codereview import ChildReviewer
from pandacea.config import Config
from pandacea.domain.code import CodeState, Submission
from pandacea.domain.job import Job, JobState
from pandacea.domain.limits import MIB
from pandacea.domain.printable import printable
from pandacea.domain.schema import count_free_bytes
from pandacea.errors import Broken, PandaceaError, Refused
from pandacea.flows import approve
from pandacea.flows.ports import Clock
from pandacea.flows.release import ReleasePorts, digest_held, held, look, refuse, release, write_output_file
from pandacea.flows.shelf import Shelf
from pandacea.flows.watch import Watch
from pandacea.store.books import SqlBooks
from pandacea.store.products import SqlProductBook

log = structlog.get_logger(__name__)

SOCKET: Final = "desk.sock"
LINE_BYTES: Final = 16 * MIB
_SHORTEST_ID: Final = 6
"""Characters of an id, `0x` among them, that may stand for the whole."""
SHOWN_OUTPUT: Final = 65_536
"""Bytes of a held result's output that `show` prints; the whole of it is in a file that `show` names."""

Asked = Mapping[str, Any]


class Desk:
    """Answers by verb; every answer is JSON."""

    def __init__(self, ports: ReleasePorts, clock: Clock, products: ProductDesk, leases: LeaseDesk) -> None:
        """Act through the journeys, in this process."""
        self._ports = ports
        self._books = ports.books
        self._clock = clock
        self._reviewer = ChildReviewer()
        self._verbs: dict[str, Callable[[Asked], Awaitable[dict[str, Any]]]] = {
            "results list": self._results,
            "results show": self._result,
            "results release": self._release,
            "results refuse": self._refuse,
            "code list": self._scripts,
            "code show": self._script,
            "code approve": lambda asked: self._decide(asked, CodeState.APPROVED),
            "code reject": lambda asked: self._decide(asked, CodeState.REJECTED),
            "products list": products.list,
            "products show": products.show,
            "products reload": products.reload,
            "leases show": leases.show,
            "leases acknowledge": leases.acknowledge,
        }

    async def answer(self, verb: str, asked: Asked) -> dict[str, Any]:
        """Do what is asked.

        Raises:
            Refused: it cannot be done as asked.
        """
        known = self._verbs.get(verb)
        if known is None:
            raise Refused(f"The node knows no {verb!r}; it may be older than this command.")
        return await known(asked)

    async def _results(self, _asked: Asked) -> dict[str, Any]:
        return {"results": [_short(job) for job in await held(self._ports)]}

    async def _result(self, asked: Asked) -> dict[str, Any]:
        job, artifacts = await look(await self._held_id(asked), self._ports)
        folder = self._ports.shelf.of(job.computation_id)
        file = await write_output_file(job, self._ports) if job.state is JobState.HELD else None
        seen = await digest_held(job, artifacts, self._ports) if job.state is JobState.HELD else None
        return _short(job) | {
            "code": job.code,
            "params": job.params,
            "inputs": job.inputs,
            "detail": job.detail,
            "error": job.error,
            "output_bytes": len(job.output),
            "output": base64.b64encode(job.output[:SHOWN_OUTPUT]).decode(),
            "output_file": None if file is None else str(file),
            "seen": seen,
            "artifacts": [{"name": item.name, "size": item.size, "file": str(folder / item.file)} for item in artifacts],
        }

    async def _release(self, asked: Asked) -> dict[str, Any]:
        computation_id, seen = await self._held_id(asked), str(asked.get("seen") or "")
        if not seen:
            raise Refused(
                f"Look at it first: `pandacea results show {computation_id}` ends with the line that releases what it showed."
            )
        job = await release(computation_id, self._ports, seen=seen)
        log.info("result.released", computation_id=job.computation_id, charge=job.charge.value)
        return {"computation_id": job.computation_id, "state": job.state.value}

    async def _refuse(self, asked: Asked) -> dict[str, Any]:
        job = await refuse(await self._held_id(asked), str(asked.get("reason") or ""), self._ports)
        log.info("result.refused", computation_id=job.computation_id)
        return {"computation_id": job.computation_id, "state": job.state.value}

    async def _held_id(self, asked: Asked) -> str:
        return _whole_id(str(asked["id"]), [job.computation_id for job in await held(self._ports)])

    async def _code_id(self, asked: Asked) -> str:
        return _whole_id(str(asked["id"]), [one.code_id for one in await approve.submissions(self._books)])

    async def _scripts(self, asked: Asked) -> dict[str, Any]:
        state = None if asked.get("all") else CodeState.PENDING
        return {"scripts": [_script(one) for one in await approve.submissions(self._books, state)]}

    async def _script(self, asked: Asked) -> dict[str, Any]:
        found = await approve.state_of(await self._code_id(asked), self._books)
        warnings = await self._reviewer.review(found.code)
        covered = {
            "code": found.code,
            "inputs": dict(found.inputs),
            "uploads": list(found.uploads),
            "params_schema": found.params_schema,
            "params_free_bytes": count_free_bytes(found.params_schema),
        }
        return _script(found) | covered | {"warnings": [{"line": one.line, "why": one.why} for one in warnings]}

    async def _decide(self, asked: Asked, state: CodeState) -> dict[str, Any]:
        code_id = await self._code_id(asked)
        found = await approve.decide(code_id, state, str(asked.get("reason") or ""), self._books, self._clock)
        log.info("code.decided", code_id=found.code_id, state=state.value)
        return _script(found)


def _whole_id(said: str, known: Sequence[str]) -> str:
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


def _script(one: Submission) -> dict[str, Any]:
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


async def serve_desk(desk: Desk, state_dir: Path, stack: AsyncExitStack) -> None:
    """Listen on the state folder's socket until the stack unwinds. Who may enter the folder may decide."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(await reader.readline())
            try:
                reply = {"answer": await desk.answer(str(asked["verb"]), asked.get("asked", {}))}
            except PandaceaError as problem:
                reply = {"problem": {"code": problem.code, "detail": problem.detail}}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except (ValueError, KeyError, AttributeError, ConnectionError) as problem:
            log.warning("desk.not_understood", problem=repr(problem))
        finally:
            writer.close()

    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, folder)
    (state_dir / SOCKET).unlink(missing_ok=True)  # of a node that was killed: this one holds the lock
    # Through the folder's descriptor: a socket's path may have 107 bytes, a state folder's more.
    server = await asyncio.start_unix_server(serve_one, f"/proc/self/fd/{folder}/{SOCKET}", limit=LINE_BYTES)
    (state_dir / SOCKET).chmod(0o600)

    async def end() -> None:
        server.close()
        await server.wait_closed()
        (state_dir / SOCKET).unlink(missing_ok=True)

    stack.push_async_callback(end)


async def ask(config: Config, verb: str, asked: Asked) -> dict[str, Any]:
    """Ask the running node, or do it here when none runs.

    Raises:
        Refused: it cannot be done as asked.
        Broken: a node runs but does not answer.
    """
    state_dir = config.store.state_dir
    answer = await ask_running(config, verb, asked)
    if answer is not None:
        return answer
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(parts.held(state_dir))
        db = await stack.enter_async_context(parts.database(config, alone=True))
        clock = parts.SystemClock()
        book = SqlProductBook(db)
        products = ProductDesk(book, config.privacy.data_dir)
        leases = LeaseDesk(lambda: kept_records(config, db), book, clock)
        return await Desk(release_ports(config, SqlBooks(db, parts.channels(config)), Watch()), clock, products, leases).answer(
            verb, asked
        )


async def ask_running(config: Config, verb: str, asked: Asked) -> dict[str, Any] | None:
    """Ask the running node; None when none runs.

    Raises:
        Refused: it cannot be done as asked.
        Broken: a node runs but does not answer.
    """
    try:
        return await _ask_node(config.store.state_dir, verb, asked)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


def release_ports(config: Config, books: SqlBooks, watch: Watch) -> ReleasePorts:
    """What deciding on held results works with."""
    shelf = Shelf(config.store.state_dir / "results", config.store.max_results_mb * MIB)
    return ReleasePorts(books, parts.SystemClock(), shelf, watch, config.settlement.post_results, config.privacy.hold_seconds)


async def _ask_node(state_dir: Path, verb: str, asked: Asked) -> dict[str, Any]:
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{SOCKET}", limit=LINE_BYTES)
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
