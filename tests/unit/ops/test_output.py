"""What the command line says."""

from __future__ import annotations

import pytest

from ops.cli.output import clock


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (10.689, "0:10"), (754.99, "12:34"), (3723.5, "1:02:03")])
def test_durations_are_cut_off_as_players_and_the_page_do(seconds: float, said: str) -> None:
    """10.689 s are 0:10, not 0:11."""
    assert clock(seconds) == said
