"""Fixtures of tests without a server."""

import pytest

from pipeline import masking


@pytest.fixture
def knowing_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masking goes by what things look like; what this test has it know is forgotten afterwards."""
    monkeypatch.setattr(masking, "_known", masking._Known())
