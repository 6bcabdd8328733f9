"""Questions at a terminal: asked again until the answer is one, kept as they come, and given up at once with Ctrl-C."""

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
Write = Callable[[str], None]


class NotAnswered(Refused):
    """A question was not answered: the input ended."""

    code = "not-answered"


def prompt_terminal(question: str) -> str:
    """One line of the person who is asked.

    Raises:
        NotAnswered: the input ended.
        KeyboardInterrupt: at the first Ctrl-C, inside an event loop too.
    """
    with _interruptible():
        try:
            return input(question)
        except EOFError:
            raise NotAnswered(
                f"The input ended at the question {question.strip()!r}; nothing was written. Answer at a terminal, or say everything "
                "by options and --yes."
            ) from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a read at once: asyncio's own handler only notes it for when the loop turns next, which a read keeps from turning."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def prompt_until_valid(ask: Prompt, say: Write, question: str, read: Callable[[str], T]) -> T:
    """Ask until `read` takes the answer; what it says of another (a BadConfig) is shown, and the question asked again."""
    while True:
        try:
            return read(ask(question).strip())
        except BadConfig as problem:
            say(f"    {problem.detail}")


def prompt_yes_no(ask: Prompt, say: Write, question: str, *, default: bool | None) -> bool:
    """Ask for a yes or a no; Enter is the default, where there is one. Any other answer is asked again."""

    def read(text: str) -> bool:
        word = text.lower()
        if not word and default is not None:
            return default
        if word in {"y", "yes", "n", "no"}:
            return word.startswith("y")
        raise BadConfig(f"{text!r} is neither yes nor no; answer y or n.")

    return prompt_until_valid(ask, say, f"{question} [{'y/n' if default is None else 'Y/n' if default else 'y/N'}] ", read)


def confirm(what: str, *, yes: bool) -> bool:
    """Ask for a yes before something that cannot be taken back.

    Raises:
        BadConfig: nobody is there to be asked, and `yes` was not said.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise BadConfig(f"{what} Nothing was done: there is no terminal to ask at. Say --yes if you mean it.")
    return prompt_yes_no(prompt_terminal, print, f"{what} Go on?", default=False)
