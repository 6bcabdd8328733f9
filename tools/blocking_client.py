"""Write daemon/pandacea_sdk/client.py, the synchronous client, from the classes of the asynchronous one.

Run `python tools/blocking_client.py` after a change of a public method; a test compares the file with what this yields.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import FunctionType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "daemon"))

from pandacea_sdk import async_client  # noqa: E402  # the path is set above
from pandacea_sdk.jobs import AsyncJobHandle  # noqa: E402  # the path is set above
from pandacea_sdk.waiting import AsyncCodeHandle, AsyncLeaseHandle  # noqa: E402  # the path is set above

FILE: Final = ROOT / "daemon" / "pandacea_sdk" / "client.py"
HANDLES: Final = (AsyncJobHandle, AsyncLeaseHandle, AsyncCodeHandle)
"""What the client's methods return besides values; each has a synchronous twin."""
TWINS: Final = {one.__name__: one.__name__.removeprefix("Async") for one in HANDLES}
BY_HAND: Final = frozenset({"close"})
"""What `loop_thread.BlockingClient` has."""
HEADER: Final = '''\
# Written by tools/blocking_client.py from async_client; change that, then run the tool.
"""`PandaceaClient`: run a script on leased data and get a verified result.

from pandacea_sdk.client import PandaceaClient

client = PandaceaClient("http://localhost:8080")
answer = client.execute_computation(lease_id, "train.py", {"table": "a"})
weights = client.decode_artifact(answer["results"]["artifacts"]["model_weights.pth"])
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pandacea_sdk.artifacts import decode_artifact, load_weights, save_artifacts
from pandacea_sdk.async_client import AsyncPandaceaClient
from pandacea_sdk.catalogues import Discovery
from pandacea_sdk.errors import PandaceaError
from pandacea_sdk.event_stream import JobEvent
from pandacea_sdk.jobs import AsyncJobHandle
from pandacea_sdk.loop_thread import BlockingClient
from pandacea_sdk.prepare import Inputs
from pandacea_sdk.protocol.execute_request import ExecuteRequest
from pandacea_sdk.protocol.hashing import Signer
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.verify import VerifiedResult
from pandacea_sdk.results import RunResult
from pandacea_sdk.run_methods import Uploads
from pandacea_sdk.scripts import Code
from pandacea_sdk.waiting import AsyncCodeHandle, AsyncLeaseHandle, Identified, LeaseBill, LeaseUsage

'''
CLIENT: Final = '''
class PandaceaClient(BlockingClient):
    """Client of one node for a Spender, for synchronous programs and notebooks.

    It works inside a running event loop too, as in Jupyter: requests run on a thread of the client's own.
    """

'''
HANDLE: Final = '''
class {twin}:
    """{doc}"""

    def __init__(self, inner: {cls}, client: PandaceaClient) -> None:
        """Made by the client's methods."""
        self._inner = inner
        self._client = client
        self._loop = client._loop  # noqa: SLF001  # the client's own thread

'''
FOOTER: Final = """
__all__ = [
    "AsyncPandaceaClient",
    "CodeHandle",
    "JobHandle",
    "LeaseHandle",
    "PandaceaClient",
    "PandaceaError",
    "decode_artifact",
    "load_weights",
    "save_artifacts",
]
"""


def render_client() -> str:
    """The text of client.py, formatted."""
    parts = [HEADER, CLIENT, _constructor(async_client.AsyncPandaceaClient)]
    parts += _methods(async_client.AsyncPandaceaClient, "self._client", "self")
    for handle in HANDLES:
        name = handle.__name__
        parts.append(HANDLE.format(twin=TWINS[name], cls=name, doc=inspect.getdoc(handle)))
        parts += _methods(handle, "self._inner", "self._client")
    text = "".join((*parts, FOOTER))
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(FILE), "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return formatted.stdout


def public_members(cls: type) -> dict[str, Any]:
    """The public members of a class and its bases, in the order in which they are written."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):
        found |= {name: member for name, member in vars(base).items() if not name.startswith("_")}
    return {name: member for name, member in found.items() if isinstance(member, FunctionType | staticmethod | property)}


def blocking_annotation(text: str) -> str:
    """The type that the twin has where the asynchronous class has `text`."""
    text = text.replace("AsyncIterator[", "Iterator[")
    return re.sub(r"\bAsync\w+", lambda found: TWINS.get(found[0], found[0]), text)


def _constructor(cls: type) -> str:
    initializer: Any = inspect.getattr_static(cls, "__init__")
    signature = inspect.signature(initializer)
    call = f"{cls.__name__}({_arguments(list(signature.parameters.values())[1:])})"
    return _function(
        "__init__", signature, inspect.getdoc(initializer), [f"self._client = {call}", "super().__init__(self._client)"]
    )


def _methods(cls: type, inner: str, owner: str) -> list[str]:
    return [_method(name, member, cls, inner, owner) for name, member in public_members(cls).items() if name not in BY_HAND]


def _method(name: str, member: Any, cls: type, inner: str, owner: str) -> str:
    if isinstance(member, property):
        assert member.fget is not None
        body = [_returned(f"{inner}.{name}", inspect.signature(member.fget).return_annotation, owner)]
        return "    @property\n" + _function(name, inspect.signature(member.fget), inspect.getdoc(member), body)
    if isinstance(member, staticmethod):
        signature = inspect.signature(member.__func__)
        call = f"{cls.__name__}.{name}({_arguments(signature.parameters.values())})"
        return "    @staticmethod\n" + _function(name, signature, inspect.getdoc(member), [f"return {call}"])
    signature = inspect.signature(member)
    call = f"{inner}.{name}({_arguments(list(signature.parameters.values())[1:])})"
    if inspect.isasyncgenfunction(member):
        body = [f"return self._loop.iterate({call})"]
    elif inspect.iscoroutinefunction(member):
        body = [_returned(f"self._loop.run({call})", signature.return_annotation, owner)]
    else:
        body = [_returned(call, signature.return_annotation, owner)]
    return _function(name, signature, inspect.getdoc(member), body)


def _returned(call: str, annotation: str, owner: str) -> str:
    if annotation == "None":
        return call
    if annotation == "Self":
        return f"{call}\nreturn self"
    return f"return {TWINS[annotation]}({call}, {owner})" if annotation in TWINS else f"return {call}"


def _arguments(parameters: Any) -> str:
    shown = []
    for parameter in parameters:
        value = parameter.name
        if any(name in str(parameter.annotation) for name in TWINS):
            value = f"inner_of({value})"
        if parameter.kind is parameter.KEYWORD_ONLY:
            value = f"{parameter.name}={value}"
        elif parameter.kind is parameter.VAR_KEYWORD:
            value = f"**{value}"
        shown.append(value)
    return ", ".join(shown)


def _function(name: str, signature: inspect.Signature, doc: str | None, body: list[str]) -> str:
    parameters = []
    starred = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            parameters.append("*")
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        annotation = "" if parameter.annotation is parameter.empty else f": {blocking_annotation(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parameters.append(f"{stars}{parameter.name}{annotation}{default}")
    doc = re.sub(r"Async(PandaceaClient)", r"\1", (doc or "").replace("asynchronous programs", "synchronous programs"))
    lines = [f"def {name}({', '.join(parameters)}) -> {blocking_annotation(signature.return_annotation)}:"]
    lines.append(textwrap.indent(f'"""{doc}\n"""' if "\n" in doc else f'"""{doc}"""', "    "))
    lines += [textwrap.indent(line, "    ") for line in body]
    return textwrap.indent("\n".join(lines), "    ") + "\n\n"


if __name__ == "__main__":
    FILE.write_text(render_client(), encoding="utf-8")
    print(f"{FILE} is written.")
