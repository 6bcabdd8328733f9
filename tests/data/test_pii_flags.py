"""Which columns may identify people: by their names, their values, and what stands in the middle of a text."""

from __future__ import annotations

import pandas as pd
import pytest

from pandacea.sandbox.guest import pii_flags

QUIET = [
    "slept well",
    "dose raised to 20 mg",
    "saw 3 of 4 targets",
    "2020-01-31 10:00 visit",
    "BP 120-80, ratio 3.14159265358",
    "ward 12",
]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("call +44 20 7946 0958 before noon", "telephone numbers"),
        ("0049 30 1234567", "telephone numbers"),
        ("reach her on 0171-5551234", "telephone numbers"),
        ("mother: (555) 123-4567", "telephone numbers"),
        ("write to ann.otter@clinic.invalid please", "e-mail addresses"),
        ("lives at 12 Old Mill Road now", "street addresses"),
        ("wohnt Lindenstraße 7", "street addresses"),
        ("born 12.03.1961, smoker", "dates of birth"),
    ],
)
def test_one_row_of_free_text_is_enough(text: str, what: str) -> None:
    """Most rows of such a column say nothing about a person; the few that do are what must not be published."""
    values = pd.Series([*QUIET * 30, text])
    assert any(
        reason.startswith("1 of 181 texts hold") and reason.endswith(what) for reason in pii_flags.flag_column("notes", values)
    )


def test_plain_text_and_figures_are_not_flagged() -> None:
    """A flag on everything is a flag on nothing."""
    assert pii_flags.flag_column("notes", pd.Series(QUIET * 30)) == []
    assert pii_flags.flag_column("stage", pd.Series(["I", "II", "III"] * 50)) == []
    assert pii_flags.flag_column("marker", pd.Series([0.5 * n for n in range(100)])) == []
    assert pii_flags.flag_column("codes", pd.Series(["A12.3", "B99.0", "0012345678"] * 50)) == []
