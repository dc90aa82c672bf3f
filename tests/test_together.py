"""Waiting for a store in many places at once."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from geofield.cube.together import together


def test_all_are_at_work_at_once() -> None:
    at_work = []

    async def meet(number: int) -> int:
        at_work.append(number)
        while len(at_work) < 4:  # whoever came alone would wait for ever
            await asyncio.sleep(0.001)
        return number

    found = together({str(number): asyncio.wait_for(meet(number), 20) for number in range(1, 5)})
    assert list(found.items()) == [("1", 1), ("2", 2), ("3", 3), ("4", 4)]
    assert together({}) == {}


@pytest.mark.parametrize("failing", ["first", "second"])
def test_an_error_comes_when_nothing_is_at_work_any_more(failing: str) -> None:
    done = []

    async def slow() -> None:
        await asyncio.sleep(0.1)
        done.append("slow")

    async def broken() -> None:
        raise OSError("gone")

    work = {"first": broken(), "second": slow()} if failing == "first" else {"first": slow(), "second": broken()}
    with pytest.raises(OSError, match="gone"):
        together(work)
    assert done == ["slow"]


def test_it_works_where_a_loop_is_running() -> None:
    async def one() -> str:
        return threading.current_thread().name

    async def notebook() -> dict[str, str]:
        return together({"a": one()})

    assert asyncio.run(notebook()) != {"a": threading.current_thread().name}


def test_a_forked_process_has_a_thread_of_its_own() -> None:
    async def one() -> int:
        return 1

    together({"a": one()})
    pid = os.fork()
    if not pid:  # a thread of the parent's would never answer
        os._exit(0 if together({"a": one()}) == {"a": 1} else 1)
    end = time.monotonic() + 20
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, 9)
        time.sleep(0.01)
    assert ended[1] == 0


def test_what_is_still_at_work_ends_when_its_caller_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    def interrupted(self: object, timeout: float | None = None) -> None:
        time.sleep(0.05)  # so that it has begun
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        together({"a": endless()})
    monkeypatch.undo()
    assert ended.wait(20)
