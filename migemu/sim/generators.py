"""Asynchronous generators of a loop: closed at the end, in the order in which they began."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import AsyncGenerator
from typing import Any


class Generators(asyncio.AbstractEventLoop):
    """The part of a loop that keeps them."""

    def __init__(self) -> None:
        self._generators: weakref.WeakValueDictionary[int, AsyncGenerator[Any, Any]] = weakref.WeakValueDictionary()
        self._generator_serials = itertools.count(1)

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators[next(self._generator_serials)] = generator

    def _generator_dies(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self.is_closed():
            self.call_soon(self.create_task, generator.aclose())

    async def shutdown_asyncgens(self) -> None:
        """Close the generators that are still open, in the order in which they began."""
        for _, generator in sorted(self._generators.items()):
            try:
                await generator.aclose()
            except Exception as error:
                message = f"an asynchronous generator failed while it was closed: {generator!r}"
                self.call_exception_handler({"message": message, "exception": error, "asyncgen": generator})
        self._generators.clear()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Does nothing: the virtual loop has no threads."""
