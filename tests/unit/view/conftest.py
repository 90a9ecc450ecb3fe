"""What is opened in a test is closed after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from migemu.view.trace_index import TraceIndex

Keep = Callable[[TraceIndex], TraceIndex]


@pytest.fixture
def keep() -> Iterator[Keep]:
    """Hold on to an index until the test is over."""
    with ExitStack() as stack:
        yield stack.enter_context
