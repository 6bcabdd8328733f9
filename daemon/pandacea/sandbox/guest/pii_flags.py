"""Flag columns that may identify people (PII), by their names and values. Only the Earner sees the flags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pandas as pd

_NAME_PATTERNS: Final = {
    "its name says that it names people": (
        r"(first|last|sur|given|family|full|maiden|user|nick|middle|patient)[_ -]?name|^name$|^vorname$|^nachname$|^nom$|^prenom$"
    ),
    "its name says that it numbers people": (
        r"(^|[_ -])(ssn|mrn|nhs|iban|passport|tax|insurance|patient|person|user|member|customer|account|subject)([_ -]?(id|no|nr|num|number))?$"
        r"|social[_ -]?security|(^|[_ -])(uuid|guid)($|[_ -])"
    ),
    "its name says that it is a way to reach somebody": (
        r"e?[_ -]?mail|phone|mobile|(^|[_ -])fax|address|street|(^|[_ -])(zip|postcode|postal|plz)|^ip([_ -]|$)|url$"
    ),
    "its name says that it is a date of birth or death": (
        r"birth|(^|[_ -])dob($|[_ -])|geburt|death|deceased|(^|[_ -])dod($|[_ -])"
    ),
    "its name says that it is a place": r"(^|[_ -])(lat|lon|lng|latitude|longitude|gps|geo|coordinates?)($|[_ -])",
}
_MAIL: Final = r"[^@\s]+@[^@\s]+\.[^@\s]+"
_DATE: Final = r"(19|20)\d\d-\d\d-\d\d|\d\d?[./]\d\d?[./](19|20)\d\d"
_TEXT_PATTERNS: Final = {
    "e-mail addresses": r"[\w.+-]+@[\w-]+\.[\w.-]*\w",
    "telephone numbers": (
        r"(?<![\w+.-])(?:(?:\+[1-9]\d{0,2}|00[1-9]\d{0,2}[ ()/.-])(?:[ ()/.-]{0,2}\d){6,12}|\(?0\d{2,5}\)?[ /-]\d{3,}(?:[ -]?\d){0,6}"
        r"|(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4})(?![\w-])"
    ),
    "street addresses": (
        r"(?i)\b\d{1,5} (?:[a-z.'-]+ ){1,3}(?:street|st|road|rd|avenue|ave|lane|drive|square|boulevard|blvd)\b"
        r"|\b[a-zäöüß-]+(?:straße|strasse|str\.|weg|platz|gasse) ?\d{1,4}\b|\b\d{1,4},? (?:rue|avenue|boulevard) [a-zà-ÿ]"
    ),
    "dates of birth": r"(?i)\b(?:born|birth|dob|d\.o\.b\.|geb\.?|geboren|née?)\b.{0,12}\d{1,4}[./-]\d{1,2}[./-]\d{1,4}",
}
"""Found in the middle of a text; one row with it is enough."""
_MIN_ROWS: Final = 20
"""Rows from which on unique or mostly different values mean something."""
_LARGE_SHARE: Final = 0.5
"""A share of the rows."""


def flag_column(name: str, values: pd.Series) -> list[str]:
    """Return the reasons why a column may identify people; an empty list: none was found. `values`: a sample as a pandas Series."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    reasons = [reason for reason, pattern in _NAME_PATTERNS.items() if re.search(pattern, words)]
    present = values.dropna()
    if len(present) == 0:
        return reasons
    if values.dtype.kind in "iu" and len(present) >= _MIN_ROWS and present.is_unique and not _looks_measured(present):
        reasons.append("every value occurs once, as numbers given to rows or people do")
    if values.dtype.kind == "M" and len(present) >= _MIN_ROWS and present.nunique() > _LARGE_SHARE * len(present):
        reasons.append("its dates differ from row to row")
    if values.dtype.kind in "iufbMm":
        return reasons
    try:
        texts = present.astype("str")
        distinct = texts.nunique()
    except (TypeError, ValueError):  # lists, bytes: nothing to compare
        return reasons
    reasons += [
        f"{rows} of {len(texts)} texts hold what looks like {what}"
        for what, pattern in _TEXT_PATTERNS.items()
        if (rows := int(texts.str.contains(pattern, regex=True).sum()))
    ]
    if texts.str.fullmatch(_MAIL).mean() > _LARGE_SHARE:
        reasons.append("its values look like e-mail addresses")
    elif texts.str.fullmatch(_DATE).mean() > _LARGE_SHARE and distinct > min(_LARGE_SHARE * len(texts), 1000):
        reasons.append("its dates differ from row to row")
    elif len(texts) >= _MIN_ROWS and distinct > _LARGE_SHARE * len(texts):
        reasons.append(f"most of its texts occur once ({distinct} different ones in {len(texts)} rows)")
    return reasons


def _looks_measured(values: pd.Series) -> bool:
    """Whether unique integers look measured rather than assigned: they spread far wider than there are rows."""
    return bool(float(values.max()) - float(values.min()) > 1000 * len(values)) and not bool((values > 0).all())
