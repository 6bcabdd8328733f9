"""Run scripts in bubblewrap in a process of its own, as a plain user or on another kernel.

`python as_user.py MODE ENVIRONMENT [PRELOAD] < jobs.json > outcomes.json`; PRELOAD: modules to import ahead, with commas between.

Needs nothing but the standard library and the sandbox, so that any system Python can run it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.sandbox.harness import close_laboratory, open_laboratory, with_caps
from tests.sandbox.leftovers import left_behind

_PEOPLE = "age,height,group\n" + "1,2,a\n" * 300


async def run_jobs(
    mode: str, environment: Path, jobs: list[dict[str, Any]], preload: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Run each job; say each outcome in JSON by the job's name, and what the self-test and the machine said."""
    laboratory = await open_laboratory(mode, environment, preload=preload)
    told: dict[str, Any] = {"probes": [asdict(probe) for probe in laboratory.sandbox.probes], "outcomes": {}}
    told["warnings"] = laboratory.sandbox.warnings
    people = laboratory.folder / "people.csv"
    people.write_text(_PEOPLE)
    two_at_a_time = asyncio.Semaphore(2)

    async def run(job: dict[str, Any]) -> None:
        limits = with_caps(**job["limits"])
        async with two_at_a_time:
            outcome = await laboratory.run(job["code"], limits=limits, tables={"people": people} if job["table"] else None)
        told["outcomes"][job["name"]] = {
            "failure": outcome.failure,
            "detail": outcome.detail,
            "output": outcome.output.decode("utf-8", "replace"),
            "code_started": outcome.code_started,
        }

    await asyncio.gather(*map(run, jobs))
    told["people_unchanged"] = people.read_text() == _PEOPLE
    await close_laboratory(laboratory)
    told["left_behind"] = left_behind(laboratory.instance, laboratory.folder / "state")
    return told


if __name__ == "__main__":
    ahead = tuple(sys.argv[3].split(",")) if len(sys.argv) > 3 else None
    sys.stdout.write(json.dumps(asyncio.run(run_jobs(sys.argv[1], Path(sys.argv[2]), json.load(sys.stdin), ahead))))
