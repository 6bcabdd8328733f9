"""Questions at a terminal: no slip of the finger is an answer, and Ctrl-C ends one at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pandacea.app.commands.prompts import Prompt, confirm, prompt_until_valid, prompt_yes_no
from pandacea.errors import BadConfig
from tests.prerequisites import ROOT

ASKING = """
import asyncio
from pandacea.app.commands.prompts import prompt_terminal
async def main():
    try:
        prompt_terminal("Drop name? ")
    finally:
        await asyncio.sleep(0)  # what is open is closed in the loop
        print("closed", flush=True)
asyncio.run(main())
"""


def answering(*answers: str) -> tuple[list[str], Prompt]:
    asked: list[str] = []
    left = iter(answers)

    def prompt(question: str) -> str:
        asked.append(question)
        return next(left)

    return asked, prompt


@pytest.mark.parametrize(
    ("answers", "default", "meant"),
    [
        (["maybe", "j", "oui", "n0", "n"], True, False),
        (["yess", "y"], False, True),
        ([""], True, True),
        ([""], False, False),
        (["", "", "No"], None, False),
    ],
)
def test_only_a_clear_word_is_an_answer(answers: list[str], default: bool | None, meant: bool) -> None:
    """Anything but yes and no, and Enter where there is a default, is asked again: it decides what becomes public."""
    asked, ask = answering(*answers)
    said: list[str] = []
    assert prompt_yes_no(ask, said.append, "Drop name?", default=default) is meant
    assert len(asked) == len(answers)
    assert len(said) == len(answers) - 1
    assert all("neither yes nor no" in line for line in said)


def test_a_mistake_is_told_where_it_is_made() -> None:
    """The question comes again, and what was answered before stays."""

    def read(text: str) -> int:
        if not text.isdigit():
            raise BadConfig(f"{text!r} is not a number.")
        return int(text)

    asked, ask = answering("twelve", " 12 ")
    said: list[str] = []
    assert prompt_until_valid(ask, said.append, "How many? ", read) == 12
    assert said == ["    'twelve' is not a number."]
    assert asked == ["How many? "] * 2


def asking() -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        [sys.executable, "-u", "-c", ASKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
    )
    assert started.stdout is not None
    assert started.stdout.read(len("Drop name? ")) == b"Drop name? "
    return started


def test_one_ctrl_c_ends_a_question() -> None:
    """Inside an event loop, whose own handler would only note it; what is open is closed."""
    started = asking()
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert out == b"closed\n"
    assert err.rstrip().endswith(b"KeyboardInterrupt")


def test_the_end_of_input_is_a_sentence() -> None:
    """The operator reads a sentence, not an EOFError."""
    _, err = asking().communicate(timeout=30)
    last = err.decode().strip().splitlines()[-1]
    assert "The input ended at the question 'Drop name?'; nothing was written." in last


def test_what_is_final_is_not_done_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked, only --yes is a word."""
    with Path(os.devnull).open(encoding="utf-8") as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        with pytest.raises(BadConfig, match=r"It cannot be recalled\. Nothing was done.*--yes"):
            confirm("It cannot be recalled.", yes=False)
    assert confirm("It cannot be recalled.", yes=True)
