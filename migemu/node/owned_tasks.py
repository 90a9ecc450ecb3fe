"""Tasks of one migration that run beside its main work: held here, ended here, and their errors are the owner's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol


class TaskOwner(Protocol):
    """Who starts the tasks: a node's side of one migration."""

    def task_failed(self, error: Exception) -> None:
        """A task has raised `error` (MemoryError among them); nobody else sees it."""


class OwnedTasks:
    """All tasks that one owner has started and that have not ended, in the order of their start."""

    def __init__(self, owner: TaskOwner) -> None:
        self._owner = owner
        self._tasks: dict[asyncio.Task[None], None] = {}  # a set would have no order

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as a task. What it raises, cancellation aside, goes to `TaskOwner.task_failed`."""
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        task.add_done_callback(lambda _: work.close())  # it may never have begun
        return task

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._owner.task_failed(error)

    def cancel(self) -> None:
        """Cancel all of them; does not wait for their end."""
        for task in list(self._tasks):
            task.cancel()

    async def end(self) -> None:
        """Cancel all of them, and return when they have ended."""
        tasks = list(self._tasks)
        self.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __repr__(self) -> str:
        return f"<OwnedTasks: {len(self._tasks)}>"
