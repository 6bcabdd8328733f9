"""`python benchmarks/http.py`: see http_load.

A script's own folder comes first on Python's path, so in this folder a file called http.py stands in front of the standard library's
`http` for every script beside it. Asked for under that name, this file steps aside.
"""

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]

if __name__ == "http":
    del sys.modules["http"]
    import_module("http")
elif __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    import_module("benchmarks.api").main()
