"""Output, artifacts and the script's own text as weapons against whoever reads them."""

from __future__ import annotations

from pandacea.domain.outcome import Failure
from tests.hostile.attack import Attack

_REFUSED = (Failure.ARTIFACT_REFUSED,)
_FLOOD = (Failure.OUTPUT_TOO_LARGE,)

ATTACKS = (
    Attack("flood", "an endless stream is cut at the cap", "while True: print('x' * 1000)\n", _FLOOD, detail="output_bytes"),
    Attack("flood-without-newlines", "a line without an end is cut as well", "while True: os.write(1, b'x' * 65536)\n", _FLOOD),
    Attack("flood-stderr", "stderr counts too", "while True: sys.stderr.write('x' * 1000)\n", _FLOOD),
    Attack(
        "flood-from-children",
        "and so does what children write",
        "for _ in range(5):\n    if os.fork() == 0:\n        while True: os.write(2, b'y' * 4096)\ntime.sleep(20)\n",
        _FLOOD,
    ),
    Attack(
        "flood-through-proc",
        "reopening the descriptor changes nothing",
        "fd = os.open('/proc/self/fd/1', os.O_WRONLY)\nwhile True: os.write(fd, b'z' * 4096)\n",
        _FLOOD,
    ),
    Attack(
        "huge-exception-text",
        "a giant message is cut, not carried",
        "raise ValueError('x' * 50_000_000)\n",
        (Failure.SCRIPT_ERROR, *_FLOOD),
    ),
    Attack(
        "exception-that-bites",
        "an exception whose text cannot be made, or whose class has an odd name, is a script error",
        """
class Bites(Exception):
    def __str__(self):
        raise MemoryError
    __repr__ = __str__
Bites.__name__ = "\\x1b[31m" + "n" * 100_000
raise Bites()
""",
        (Failure.SCRIPT_ERROR,),
    ),
    Attack(
        "exit-with-a-novel",
        "sys.exit with megabytes is output like any other",
        "sys.exit('x' * 10_000_000)\n",
        (*_FLOOD, Failure.SCRIPT_ERROR),
    ),
    Attack(
        "terminal-codes",
        "control sequences arrive as bytes; whoever shows them escapes them",
        "os.write(1, b'\\x1b]0;owned\\x07\\x1b[2J\\xe2\\x80\\xae' + bytes(range(256)))\nheld('sent')\n",
    ),
    Attack(
        "artifact-symlink",
        "a symbolic link is refused and named",
        "os.symlink('/etc/passwd', 'model.pth')\n",
        _REFUSED,
        detail="model.pth",
    ),
    Attack("artifact-dangling-symlink", "a dangling one too", "os.symlink('/nowhere', 'x')\n", _REFUSED, detail="symbolic link"),
    Attack(
        "artifact-folder-symlink",
        "a linked folder is not followed",
        "os.symlink('/usr', 'folder')\n",
        _REFUSED,
        detail="symbolic link",
    ),
    Attack(
        "artifact-hard-link",
        "two names for one file are refused",
        "open('a', 'w').write('x')\nos.link('a', 'b')\n",
        _REFUSED,
        detail="hard link",
    ),
    Attack("artifact-fifo", "a fifo cannot even be made", "attempt('mkfifo', os.mkfifo, 'fifo')\n"),
    Attack("artifact-socket", "nor a socket's name", "a, b = socket.socketpair()\nattempt('bind', a.bind, '/workspace/s')\n"),
    Attack(
        "artifact-not-utf8",
        "a name that is not UTF-8 is refused",
        "open(b'\\xff\\xfe.pth', 'w').close()\n",
        _REFUSED,
        detail="UTF-8",
    ),
    Attack(
        "artifact-newline", "a name with a line break is refused", "open('a\\nb', 'w').close()\n", _REFUSED, detail="not allowed"
    ),
    Attack(
        "artifact-escape",
        "a name with an escape sequence is refused",
        "open('\\x1b[31m', 'w').close()\n",
        _REFUSED,
        detail="not allowed",
    ),
    Attack(
        "artifact-backslash",
        "a name that is a path elsewhere is refused",
        "open('..\\\\..\\\\evil.exe', 'w').close()\n",
        _REFUSED,
        detail="not allowed",
    ),
    Attack(
        "artifact-bidi",
        "a name that reads backwards is refused",
        "open('\\u202egpj.exe', 'w').close()\n",
        _REFUSED,
        detail="not allowed",
    ),
    Attack(
        "artifact-long-name",
        "a name longer than a kilobyte, folders and all, is refused",
        """
path = b"/workspace/" + b"/".join([b"a" * 254, b"b" * 254, b"c" * 254, b"e" * 254])
os.makedirs(path)
os.chdir(path)
open(b"d" * 255, "w").close()
for depth in range(3):
    os.chdir("..")
""",
        _REFUSED,
        detail="name is too long",
        limits={"artifact_depth": 5},
    ),
    Attack(
        "artifact-same-name-nfc",
        "two names that are one after normalising are refused",
        "open('e\\u0301', 'w').close()\nopen('\\u00e9', 'w').close()\n",
        _REFUSED,
        detail="same name",
    ),
    Attack(
        "artifact-same-name-case",
        "two names that differ in case only are refused",
        "open('Model', 'w').close()\nopen('model', 'w').close()\n",
        _REFUSED,
        detail="same name",
    ),
    Attack(
        "artifact-too-many",
        "more files than the cap are refused",
        "for n in range(65): open(f'{n}', 'w').close()\n",
        _REFUSED,
        detail="artifact_count=64",
    ),
    Attack(
        "artifact-very-many",
        "thousands are refused without being counted to the end",
        "for n in range(3500): open(f'{n}', 'w').close()\n",
        _REFUSED,
        detail="artifact_count=64",
    ),
    Attack(
        "artifact-too-large",
        "a file over its cap is refused and named",
        "open('big', 'wb').write(b'x' * 2_000_000)\n",
        _REFUSED,
        detail="'big': 2000000 bytes exceed artifact_bytes=1000000",
        limits={"artifact_bytes": 1_000_000},
    ),
    Attack(
        "artifact-sparse",
        "a sparse file counts with its full length",
        "with open('hole', 'wb') as file: file.truncate(60_000_000)\n",
        _REFUSED,
        detail="artifact_bytes",
        limits={"artifact_bytes": 1_000_000},
    ),
    Attack(
        "artifact-total",
        "files together over the cap are refused",
        "for n in range(5): open(f'{n}', 'wb').write(b'x' * 900_000)\n",
        _REFUSED,
        detail="artifacts_bytes=3000000",
        limits={"artifact_bytes": 1_000_000, "artifacts_bytes": 3_000_000},
    ),
    Attack(
        "artifact-too-deep",
        "folders deeper than the cap are refused",
        "os.makedirs('a/b/c/d/e/f')\nopen('a/b/c/d/e/f/g', 'w').close()\n",
        _REFUSED,
        detail="artifact_depth=4",
    ),
    Attack(
        "artifact-bottomless",
        "a chain of a thousand folders is refused quickly",
        "for _ in range(1000):\n    os.mkdir('d')\n    os.chdir('d')\n",
        _REFUSED,
        detail="artifact_depth=4",
    ),
    Attack(
        "artifact-unreadable",
        "a file without permissions is refused, not a crash",
        "open('secret', 'w').close()\nos.chmod('secret', 0)\n",
        _REFUSED,
        detail="secret",
    ),
    Attack(
        "artifact-unreadable-folder",
        "a folder without permissions too",
        "os.mkdir('shut')\nos.chmod('shut', 0)\n",
        _REFUSED,
        detail="shut",
    ),
    Attack(
        "artifact-workspace-shut",
        "a workspace without permissions too",
        "os.chmod('/workspace', 0)\n",
        (*_REFUSED, None),
        says_held=False,
    ),
    Attack("artifact-in-folder", "a link in the uploads' place is not followed", "os.symlink('/etc', 'in')\nheld('linked')\n"),
    Attack(
        "artifact-pickle",
        "a pickle that would run code leaves as bytes; nobody on this side opens it",
        """
import pickle
class Bomb:
    def __reduce__(self):
        return (os.system, ("echo BROKEN pickle ran",))
data = pickle.dumps(Bomb())
with open("model.pth", "wb") as file:
    file.write(data)
held("left it")
""",
    ),
    Attack(
        "artifact-bad-result-keeps-script-error",
        "a script that fails keeps its own error when its files are refused as well",
        "os.symlink('/etc/passwd', 'x')\nraise RuntimeError('mine')\n",
        (Failure.SCRIPT_ERROR,),
        detail="symbolic link",
    ),
    Attack(
        "code-brackets",
        "a script of nothing but brackets ends as a script error",
        "(" * 100_000,
        (Failure.SCRIPT_ERROR, Failure.MEMORY_LIMIT),
        prelude=False,
    ),
    Attack(
        "code-nested",
        "so does one that nests as deep as the parser goes",
        "x = " + "-" * 50_000 + "1",
        (Failure.SCRIPT_ERROR, Failure.MEMORY_LIMIT),
        prelude=False,
    ),
    Attack("code-null-byte", "and one with a null byte", "x = 1\0\n", (Failure.SCRIPT_ERROR,), prelude=False),
    Attack(
        "code-huge-number",
        "and one with a number that takes for ever to read",
        "x = " + "9" * 90_000,
        (Failure.SCRIPT_ERROR,),
        prelude=False,
    ),
    Attack(
        "code-constant-bomb",
        "and one whose constants explode while it compiles",
        "x = (((('a' * 4000) * 4000) * 4000) * 4000)\n",
        (Failure.SCRIPT_ERROR, Failure.MEMORY_LIMIT),
        prelude=False,
    ),
)
