"""One Matrix for all tests of hostile clients and machines: each start takes seconds."""

from collections.abc import Iterator

import pytest

from matrix.testing.hostile_case import HostileCase


@pytest.fixture(autouse=True, scope="package")
def _one_matrix() -> Iterator[None]:
    with HostileCase.shared():
        yield
