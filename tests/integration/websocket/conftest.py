"""One Matrix for all tests of WebSockets: each start takes seconds."""

from collections.abc import Iterator

import pytest

from matrix.testing.websocket_case import WebSocketCase


@pytest.fixture(autouse=True, scope="package")
def _one_matrix() -> Iterator[None]:
    with WebSocketCase.shared():
        yield
