"""Starts nodes fast: the imports of a node, once; then a fork for each node, which goes on as `pandacea run` does.

Lines of JSON on standard input: `{"start": WORDS, "log": FILE}` runs `pandacea WORDS` in a process of its own and answers its id;
`{"wait": PID}` answers how it ended (negative: the signal).
"""

from __future__ import annotations

import gc
import json
import os
import sys

import aiohttp.web  # noqa: F401  # what a node imports late, early
import alembic.command  # noqa: F401  # likewise
import eth_account  # noqa: F401  # likewise

import pandacea.app.node  # noqa: F401  # likewise
from pandacea.cli.main import main as run_command


def main() -> None:
    """Serve until standard input ends."""
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            _answer(os.waitstatus_to_exitcode(status))
            continue
        pid = os.fork()
        if pid == 0:
            _become(asked["log"], asked["start"])
        _answer(pid)


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _become(log: str, words: list[str]) -> None:
    status = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        status = run_command(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
