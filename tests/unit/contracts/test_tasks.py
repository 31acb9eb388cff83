"""Tasks end when they are told to, also those that miss it the first time."""

from __future__ import annotations

import asyncio

from contracts.tasks import end_tasks


async def test_a_task_that_loses_its_cancellation_ends_all_the_same() -> None:
    """As one does whose `wait_for` gets its answer in the same turn of the loop."""
    turns: list[int] = []

    async def deaf() -> None:
        while True:
            answer = asyncio.get_running_loop().create_future()
            answered.append(answer)
            await asyncio.wait_for(answer, 60)
            turns.append(1)

    answered: list[asyncio.Future[None]] = []
    task = asyncio.create_task(deaf())
    while not answered:
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(answered[0].set_result, None)
    asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.sleep(0.01)
    assert turns, "the cancellation was not lost: the test shows nothing"
    assert not task.done()
    await end_tasks(task, None)
    assert task.cancelled()


async def test_errors_of_ended_tasks_are_dropped() -> None:
    """Whoever ends a task does not care what it had to say."""

    async def fails() -> None:
        raise ValueError

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await end_tasks(task)
    assert isinstance(task.exception(), ValueError)
