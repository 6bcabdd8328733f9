"""URLs without what may be a key: API keys travel in paths, queries and user names."""

from __future__ import annotations

import re
from typing import Final

_URL: Final = re.compile(r"(\w+://)(?:[^\s/@]*@)?([^\s/?#]+)[^\s'\"]*")


def redact_url(url: str) -> str:
    """Reduce a URL to scheme, host and port."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0].rpartition('@')[2]}"


def redact_urls_in(text: str) -> str:
    """Reduce every URL inside a text to scheme, host and port."""
    return _URL.sub(r"\1\2", text) if "://" in text else text
