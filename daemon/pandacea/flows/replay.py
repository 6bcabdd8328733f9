"""Replay a kept computation: the same code, inputs, environment and seed in a new sandbox, compared with what was signed.

The operator asks for it. Nothing of it is charged, signed, committed or shown to a Spender; its files are deleted at its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.domain.audit_entries import BY_OPERATOR, audit_job
from pandacea.domain.charge import Charge
from pandacea.domain.ids import AssetId
from pandacea.domain.job import TERMINAL, Job, JobState, Mode
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Outcome
from pandacea.errors import ProblemError, Refused
from pandacea.files.results import ResultStore
from pandacea.files.upload_files import UploadFiles
from pandacea.flows.finish import reduce_failed_run
from pandacea.flows.ports import Clock, InputTable, Sandbox, SandboxEvent, SandboxIdentity, SandboxJob, TableFormat
from pandacea.flows.unit_of_work import Database, ProductStore, StoredArtifact
from pandacea_sdk.protocol.json_types import JsonObject

NOT_REPEATED: Final = (
    "two replays differ from each other, too: the script does not repeat (time, its own randomness, order of threads or sets)"
)
REPEATED_OTHERWISE: Final = "two replays agree with each other, and not with what was signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPorts:
    """What a replay works with."""

    database: Database
    products: ProductStore
    sandbox: Sandbox
    identity: SandboxIdentity
    """Of the sandbox as it is now."""
    upload_files: UploadFiles
    results: ResultStore
    clock: Clock


@dataclass(frozen=True, slots=True)
class Difference:
    """What did not repeat: `output`, `artifact NAME`, `table NAME`, `environment` ... and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """How a replay ended; equal: nothing differed."""

    job: Job
    ran: bool
    """False: something that it needs is not here any more."""
    differences: tuple[Difference, ...]

    @property
    def is_equal(self) -> bool:
        """Whether all that was signed came out again."""
        return self.ran and not self.differences


async def replay_computation(computation_id: str, ports: ReplayPorts, *, by: str = BY_OPERATOR) -> ReplayReport:
    """Run a signed computation again and compare output, artifacts and exit with its manifest and with what is kept of it.

    Raises:
        ProblemError: `computation-unknown`.
        Refused: it has no signed result, or the disk has no room.
        Unavailable: database or sandbox failed; try again.
    """
    async with ports.database.read_session() as session:
        job = await session.jobs.find_job(computation_id)
        artifacts = await session.jobs.list_artifacts(computation_id)
    manifest = _require_signed(job, computation_id)
    assert job is not None
    limits = Limits(**manifest["sandbox"]["limits"])
    if (shortage := ports.results.find_disk_shortage(limits)) is not None:
        raise Refused(f"There is no room for a replay: {shortage}.")
    found = [*await _compare_kept(job, artifacts, manifest, ports), *_compare_sandbox(manifest, ports.identity)]
    missing, inputs, uploads = await _collect_inputs(job, manifest, ports)
    if missing:
        report = ReplayReport(job, False, (*found, *missing))
    else:
        sandbox = manifest["sandbox"]

        async def run_again() -> JsonObject:
            return await _run(job, inputs, uploads, limits, int(sandbox["seed"]), int(sandbox["threads"]), ports)

        first = await run_again()
        differing = [what for what in sorted({*first, *_replayed(manifest)}) if first.get(what) != _replayed(manifest).get(what)]
        second = await run_again() if differing else first
        found += [
            Difference(what, REPEATED_OTHERWISE if first.get(what) == second.get(what) else NOT_REPEATED) for what in differing
        ]
        report = ReplayReport(job, True, tuple(found))
    async with ports.database.unit_of_work() as work:
        members = {"ran": report.ran, "equal": report.is_equal, "differences": [one.what for one in report.differences]}
        await work.audit.append_entry("replayed", ports.clock.now(), by, audit_job(job) | members)
        await work.commit()
    return report


def _require_signed(job: Job | None, computation_id: str) -> JsonObject:
    if job is None:
        raise ProblemError("computation-unknown", f"No computation has the id {computation_id!a} here.")
    if job.mode is not Mode.LIVE or job.state not in {*TERMINAL, JobState.HELD} or job.manifest is None:
        raise Refused(
            f"{computation_id} has no signed result ({job.mode.value}, {job.state.value}): there is nothing to compare with."
        )
    found: JsonObject = json.loads(job.manifest)
    if hashlib.sha256(job.code.encode()).hexdigest() != found["code_sha256"]:
        why = "was deleted when its time was over" if not job.code else "is not the one that was signed"
        raise Refused(f"The script kept of {computation_id} {why}: it cannot be run again.")
    if hashlib.sha256(job.params.encode()).hexdigest() != found["params_sha256"]:
        raise Refused(f"The params kept of {computation_id} are not those that were signed: it cannot be run again.")
    return found


async def _compare_kept(job: Job, artifacts: list[StoredArtifact], manifest: JsonObject, ports: ReplayPorts) -> list[Difference]:
    """Hold the kept bytes against the manifest; nothing to say of what was deleted when its time was over."""
    if job.removed_at is not None:
        return []
    found = []
    if _digest(job.output) != manifest["output"]:
        found.append(Difference("kept output", "what is stored here is not what was signed"))
    folder = ports.results.path_of(job.computation_id)
    names = {item.name: item for item in artifacts}
    for name, signed in manifest["artifacts"].items():
        item = names.get(name)
        kept = None if item is None else await asyncio.to_thread(_digest_file, folder / item.file)
        if kept != signed:
            found.append(Difference(f"kept artifact {name}", "what is stored here is not what was signed"))
    return found


def _compare_sandbox(manifest: JsonObject, identity: SandboxIdentity) -> list[Difference]:
    signed, now = manifest["sandbox"], {"kind": identity.kind, "environment": identity.environment, "guest": identity.guest}
    return [
        Difference(name, f"it ran in {signed[name]}, and this node has {value} now")
        for name, value in now.items()
        if signed[name] != value
    ]


async def _collect_inputs(
    job: Job, manifest: JsonObject, ports: ReplayPorts
) -> tuple[list[Difference], list[InputTable], dict[str, Path]]:
    missing, inputs = [], []
    for item in manifest["inputs"]:
        asset = await ports.products.find_asset_by_commitment(item["commitment"])
        if asset is None or not asset.path.is_file():
            missing.append(
                Difference(f"table {item['asset_id']}", "its rows of then are not kept here: it is at another version now")
            )
        else:
            inputs.append(
                InputTable(
                    AssetId(item["asset_id"]), item["variable_name"], asset.path, TableFormat(asset.format), asset.commitment
                )
            )
    uploads = {name: ports.upload_files.path_of(job.spender, digest) for name, digest in manifest["uploads"].items()}
    for name, path in uploads.items():
        kept = await asyncio.to_thread(_digest_file, path)
        if kept is None or kept["sha256"] != manifest["uploads"][name]:
            missing.append(Difference(f"upload {name}", "its Spender's file was deleted when its time was over"))
    return missing, inputs, uploads


async def _run(
    job: Job, inputs: list[InputTable], uploads: dict[str, Path], limits: Limits, seed: int, threads: int, ports: ReplayPorts
) -> JsonObject:
    """Run once in a new sandbox, in a folder that no row names; return what can be compared."""
    name = f"replay-{secrets.token_hex(8)}"
    try:
        sandbox_job = SandboxJob(
            computation_id=job.computation_id,
            code=job.code.encode(),
            params=job.params.encode(),
            inputs=tuple(inputs),
            uploads=uploads,
            limits=limits,
            seed=seed,
            threads=threads,
            results_dir=await ports.results.create_folder(name),
            capture_stderr=job.show_messages,
        )
        outcome = await ports.sandbox.run_job(sandbox_job, _ignore_event)
    finally:
        await asyncio.shield(ports.results.remove_folder(name))
    return _of_outcome(reduce_failed_run(outcome) if job.charge is Charge.ALLOWANCE else outcome)


def _ignore_event(_event: SandboxEvent) -> None:
    """Do nothing: nobody looks on while a replay runs."""


def _of_outcome(outcome: Outcome) -> JsonObject:
    script_error = outcome.script_error
    members: JsonObject = {
        "exit": {
            "status": outcome.exit_status,
            "failure": None if outcome.failure is None else outcome.failure.value,
            "error_type": None if script_error is None else script_error.type,
        },
        "truncated": outcome.truncated,
        "output": _digest(outcome.output),
    }
    return members | {f"artifact {item.name}": {"sha256": item.sha256, "size": item.size} for item in outcome.artifacts}


def _replayed(manifest: JsonObject) -> JsonObject:
    members: JsonObject = {name: manifest[name] for name in ("exit", "truncated", "output")}
    return members | {f"artifact {name}": digest for name, digest in manifest["artifacts"].items()}


def _digest(content: bytes) -> JsonObject:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _digest_file(path: Path) -> JsonObject | None:
    try:
        with path.open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}
    except OSError:
        return None
