"""Processes that tests kill: a module of tests in an interpreter of its own, and children that it forks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.prerequisites import ROOT


async def run_module(name: str, *arguments: str) -> Any:
    """Run a module to its end and return the JSON that it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        name,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'daemon'}:{ROOT}"},
    )
    said, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()[-2000:]
    return json.loads(said)


def run_forked(work: Coroutine[Any, Any, Any], what: str) -> Any:
    """Run a coroutine in a forked child and return its result, which JSON can carry; None when the child was killed with SIGKILL."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        try:
            sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the child's whole life
            said = json.dumps(asyncio.run(work))
        except BaseException as problem:  # noqa: BLE001 - a forked child must not fall through into the parent's code
            said = f"! {problem!r}"[:4000]
        os.write(writable, said.encode())
        os._exit(0)
    work.close()
    os.close(writable)
    with os.fdopen(readable) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if answer.startswith("!") or not answer:
        raise SystemExit(f"{what}: {answer or status}")
    return json.loads(answer)
