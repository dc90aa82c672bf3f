"""Waiting for a store in many places at once."""

from __future__ import annotations

import os
import threading
import time

import pytest

from geofield.cube.together import together


def test_all_are_at_work_at_once() -> None:
    meeting = threading.Barrier(4)
    found = together({str(number): lambda number=number: meeting.wait(20) >= 0 and number for number in range(1, 5)})
    assert found == {"1": 1, "2": 2, "3": 3, "4": 4}
    assert list(found) == ["1", "2", "3", "4"]
    assert together({}) == {}


@pytest.mark.parametrize("failing", ["first", "second"])
def test_an_error_comes_when_nothing_is_at_work_any_more(failing: str) -> None:
    done = []

    def slow() -> None:
        time.sleep(0.1)
        done.append("slow")

    def broken() -> None:
        raise OSError("gone")

    work = {"first": broken, "second": slow} if failing == "first" else {"first": slow, "second": broken}
    with pytest.raises(OSError, match="gone"):
        together(work)
    assert done == ["slow"]


def test_a_forked_process_has_threads_of_its_own() -> None:
    work = {"a": lambda: 1, "b": lambda: 2}
    together(work)
    pid = os.fork()
    if not pid:  # a thread of the parent's would never answer
        os._exit(0 if together(work) == {"a": 1, "b": 2} else 1)
    end = time.monotonic() + 20
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, 9)
        time.sleep(0.01)
    assert ended[1] == 0
