"""One sentence that helps with an exception whose cause is the sandbox itself, for those who expect a machine of their own."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from typing import Final

_NETWORK_MODULES: Final = frozenset({"socket", "urllib", "urllib3", "requests", "httpx", "httpcore", "aiohttp"})
_NETWORK_NAMES: Final = frozenset({"gaierror", "herror"})
_MAX_CHAIN: Final = 20
_MAX_NAMES: Final = 10


def find_hint(error: BaseException, variables: Iterable[str], uploads: Iterable[str]) -> str | None:
    """Return the hint for an exception, or None. `variables`: names of the tables; `uploads`: names of the files in /workspace/in."""
    for link in _chain(error):
        if isinstance(link, ModuleNotFoundError) and link.name:
            return (
                f"the environment of this sandbox has no module {link.name}; its packages are listed at /.well-known/pandacea, "
                "and the Earner can add more"
            )
        if _is_network(link):
            return "a sandbox has no network: data comes as variables, and files of yours as uploads in /workspace/in"
        if isinstance(link, FileNotFoundError) and isinstance(link.filename, str | bytes):
            return (
                f"a sandbox has no file of yours or of the Earner by name: data comes as variables (here: {_list_names(variables)}), "
                f"uploads as /workspace/in/NAME (here: {_list_names(uploads)})"
            )
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it stands for, the outermost first."""
    link: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__


def _is_network(error: BaseException) -> bool:
    kinds = type(error).__mro__
    if any(kind.__module__.partition(".")[0] in _NETWORK_MODULES or kind.__name__ in _NETWORK_NAMES for kind in kinds):
        return True
    if not isinstance(error, OSError) or error.filename is not None:
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ConnectionError) or bool(frames and frames[-1].filename.endswith(("/socket.py", "\\socket.py")))


def _list_names(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = ", ..." if len(listed) > _MAX_NAMES else ""
    return ", ".join(listed[:_MAX_NAMES]) + more if listed else "none"
