"""What a page registers does not stay."""

import pytest

from calipers.diagnostics import CHECKS


@pytest.fixture(scope="module", autouse=True)
def checks_as_before():
    """The checks that the pages define are gone after the module."""
    before = dict(CHECKS)
    yield
    CHECKS.clear()
    CHECKS.update(before)
