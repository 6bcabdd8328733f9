"""Questions at a terminal: repeated until the answer is valid, and ended at once by Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from pandacea.errors import BadConfig, Refused

T = TypeVar("T")
Prompt = Callable[[str], str]
"""Asks a question and returns the line that was typed."""
Write = Callable[[str], None]
"""Shows a text to the person who is asked."""


class NotAnswered(Refused):
    """A question was not answered: the input ended."""

    code = "not-answered"


def prompt_terminal(question: str) -> str:
    """Ask at the terminal and return one line.

    Raises:
        NotAnswered: the input ended.
        KeyboardInterrupt: at the first Ctrl-C, inside an event loop too.
    """
    with _interruptible():
        try:
            return input(question)
        except EOFError:
            raise NotAnswered(
                f"The input ended at the question {question.strip()!r}; nothing was written. Answer at a terminal, or give everything "
                "by options and --yes."
            ) from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a blocking read at once: asyncio's handler acts only when the loop turns next, which the read prevents."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def prompt_until_valid(prompt: Prompt, write: Write, question: str, read: Callable[[str], T]) -> T:
    """Ask until `read` accepts the answer; show its BadConfig for any other, and ask again."""
    while True:
        try:
            return read(prompt(question).strip())
        except BadConfig as problem:
            write(f"    {problem.detail}")


def prompt_yes_no(prompt: Prompt, write: Write, question: str, *, default: bool | None) -> bool:
    """Ask for yes or no; Enter means the default, where there is one. Any other answer is asked for again."""

    def read(text: str) -> bool:
        word = text.lower()
        if not word and default is not None:
            return default
        if word in {"y", "yes", "n", "no"}:
            return word.startswith("y")
        raise BadConfig(f"{text!r} is neither yes nor no; answer y or n.")

    return prompt_until_valid(prompt, write, f"{question} [{'y/n' if default is None else 'Y/n' if default else 'y/N'}] ", read)


def confirm(warning: str, *, yes: bool) -> bool:
    """Ask for yes before something that cannot be undone; `yes`: it was given as an option.

    Raises:
        BadConfig: there is no terminal to ask at, and `yes` is false.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise BadConfig(f"{warning} Nothing was done: there is no terminal to ask at. Say --yes if you mean it.")
    return prompt_yes_no(prompt_terminal, print, f"{warning} Go on?", default=False)
