"""Processes that tests stop and kill, and a watch that kills one before the n-th change it makes to a directory.

Children are forked from a server that has everything imported, which takes milliseconds where a fresh interpreter takes
seconds. The watch is the kernel's own: the child installs a seccomp filter that hands every system call that changes a
file to the parent, which lets it pass or kills the child first. It needs no privileges; Linux 5.7 or newer, on x86-64
or ARM.
"""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import platform
import select
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.support.preload"])

_PASSED_ON = ("AWS_", "GEOFIELD_")


class Child:
    """A process that runs `target(*arguments)` once `go` is called.

    Parameters
    ----------
    is_watched
        Every change that it makes to a file waits for `Watch`.
    """

    def __init__(self, target: Callable[..., Any], *arguments: Any, is_watched: bool = False) -> None:
        self._connection, other = _context.Pipe()
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        self.process: ForkServerProcess = _context.Process(
            target=_main, args=(other, environment, target, arguments, is_watched), daemon=True
        )
        self.process.start()
        other.close()
        self.listener = _received_fd(self._connection) if is_watched else -1

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process.pid is not None
        return self.process.pid

    def go(self) -> Child:
        """Let it begin."""
        self._connection.send("go")
        return self

    def send(self, value: Any) -> None:
        """Tell it something; it sees that with `is_told`."""
        self._connection.send(value)

    def tell(self, timeout: float = 120) -> Any:
        """What it said with `say`, or its result; `AssertionError` holds its traceback where it failed."""
        if not self._connection.poll(timeout):
            raise AssertionError(f"process {self.pid} said nothing for {timeout} s")
        kind, value = self._connection.recv()
        assert kind != "error", value
        return value

    def result(self, timeout: float = 120) -> Any:
        """Wait for its end; what `target` gave back."""
        value = self.tell(timeout)
        self.process.join(timeout)
        return value

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def wait_until_stopped(self, timeout: float = 60) -> None:
        """Until every thread of it stands still."""
        end = time.monotonic() + timeout
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < end, "it does not stop"
            time.sleep(0.005)

    def continue_(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def was_killed(self, timeout: float = 120) -> bool:
        """Wait for its end; False when it ended well by itself, `AssertionError` when it failed by itself."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "still running"
        if self.process.exitcode == -signal.SIGKILL:
            return True
        self.result()
        return False

    def stop(self) -> None:
        """SIGKILL if it still runs; nothing is left of it."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self._connection.close()
        if self.listener >= 0:
            os.close(self.listener)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


_to_parent: list[Connection] = []


def say(value: Any) -> None:
    """In a child: tell the parent something."""
    _to_parent[-1].send(("said", value))


def is_told() -> bool:
    """In a child: whether the parent has sent something."""
    return _to_parent[-1].poll()


def _main(
    connection: Connection,
    environment: dict[str, str],
    target: Callable[..., Any],
    arguments: tuple[Any, ...],
    is_watched: bool,
) -> None:
    os.environ.update(environment)
    _to_parent.append(connection)
    if is_watched:
        _send_fd(connection, _install_filter())
    connection.recv()
    try:
        value = target(*arguments)
    except BaseException:
        connection.send(("error", traceback.format_exc()))
        os._exit(1)
    connection.send(("result", value))
    os._exit(0)  # what else ends an interpreter is no part of the test


def _send_fd(connection: Connection, fd: int) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as pipe:
        socket.send_fds(pipe, [b"f"], [fd])
    os.close(fd)


def _received_fd(connection: Connection) -> int:
    with socket.socket(fileno=os.dup(connection.fileno())) as pipe:
        _, fds, _, _ = socket.recv_fds(pipe, 1, 1)
    assert fds, "the child could not be watched"
    return int(fds[0])


# --- the watch -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Machine:
    """Numbers of system calls: by name, those whose argument 0 is a descriptor, or that have paths at some places."""

    audit: int
    seccomp: int
    openat: int
    descriptors: dict[int, tuple[str, int]]
    paths: dict[int, tuple[str, tuple[tuple[int | None, int], ...]]]


# number -> (name, places of (directory descriptor or None, path))
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        317,
        257,
        {1: ("write", 0), 18: ("pwrite", 0), 20: ("writev", 0), 77: ("ftruncate", 0), 285: ("fallocate", 0),
         326: ("copy_file_range", 2), 40: ("sendfile", 0)},
        {257: ("openat", ((0, 1),)), 76: ("truncate", ((None, 0),)), 82: ("rename", ((None, 0), (None, 1))),
         83: ("mkdir", ((None, 0),)), 84: ("rmdir", ((None, 0),)), 86: ("link", ((None, 0), (None, 1))),
         87: ("unlink", ((None, 0),)), 258: ("mkdirat", ((0, 1),)), 263: ("unlinkat", ((0, 1),)),
         264: ("renameat", ((0, 1), (2, 3))), 265: ("linkat", ((0, 1), (2, 3))),
         316: ("renameat2", ((0, 1), (2, 3)))},
    ),
    "aarch64": _Machine(
        0xC00000B7,
        277,
        56,
        {64: ("write", 0), 68: ("pwrite", 0), 66: ("writev", 0), 46: ("ftruncate", 0), 47: ("fallocate", 0),
         285: ("copy_file_range", 2), 71: ("sendfile", 0)},
        {56: ("openat", ((0, 1),)), 45: ("truncate", ((None, 0),)), 34: ("mkdirat", ((0, 1),)),
         35: ("unlinkat", ((0, 1),)), 38: ("renameat", ((0, 1), (2, 3))), 37: ("linkat", ((0, 1), (2, 3))),
         276: ("renameat2", ((0, 1), (2, 3)))},
    ),
}  # fmt: skip

_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_AT_FDCWD = -100


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def _program(machine: _Machine) -> list[tuple[int, int, int, int]]:
    """Notify of every call that changes a file; of openat only when it may create or empty one."""
    numbers = [*machine.descriptors, *(number for number in machine.paths if number != machine.openat)]
    count = len(numbers)
    # places: 0 load architecture, 1 compare, 2 load number, then the numbers, openat, allow, flags, compare, notify
    body = [(_JUMP_EQUAL, count - place + 3, 0, number) for place, number in enumerate(numbers)]
    return [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 0, count + 2, machine.audit),
        (_LOAD, 0, 0, 0),
        *body,
        (_JUMP_EQUAL, 1, 0, machine.openat),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, 32),
        (_JUMP_SET, 0, 1, os.O_CREAT | os.O_TRUNC),
        (_RETURN, 0, 0, _NOTIFY),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _install_filter() -> int:
    machine = _MACHINES[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    code = _program(machine)
    instructions = (_Instruction * len(code))(*[_Instruction(*one) for one in code])
    program = _Program(len(code), instructions)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    # SET_MODE_FILTER; for all threads, whose ids matter not (TSYNC, TSYNC_ESRCH), and with a listener (NEW_LISTENER)
    fd = libc.syscall(machine.seccomp, 1, 1 | 8 | 16, ctypes.byref(program))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(fd)


def can_watch() -> bool:
    """Whether this machine can hand system calls of a child to its parent."""
    if platform.system() != "Linux" or platform.machine() not in _MACHINES:
        return False
    pid = os.fork()
    if not pid:
        try:
            _install_filter()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


@dataclass
class Watch:
    """Lets a watched child work, and kills it before its n-th change below a directory.

    Attributes
    ----------
    root
        Changes elsewhere pass and do not count.
    kill_at
        1 is the first change; 0 never kills.
    seen
        What it did: name of the call and path.
    """

    root: Path
    kill_at: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)

    def follow(self, child: Child) -> None:
        """Until the child has ended."""
        poll = select.poll()
        poll.register(child.listener, select.POLLIN)
        machine = _MACHINES[platform.machine()]
        while True:
            events = poll.poll(120_000)
            assert events, "the watched child does nothing"
            if not events[0][1] & select.POLLIN:
                return
            self._one(child, machine)

    def _one(self, child: Child, machine: _Machine) -> None:
        note = bytearray(80)
        try:
            fcntl.ioctl(child.listener, _RECEIVE, note)
        except FileNotFoundError:  # its thread has ended meanwhile
            return
        number, thread, _ = struct.unpack_from("=QII", note)
        call, _, _, *arguments = struct.unpack_from("=iIQ6Q", note, 16)
        found = self._change(machine, thread, call, arguments)
        if found is not None:
            self.seen.append(found)
            if len(self.seen) == self.kill_at:
                child.kill()
                return
        try:
            fcntl.ioctl(child.listener, _SEND, bytearray(struct.pack("=QqiI", number, 0, 0, _CONTINUE)))
        except FileNotFoundError:
            return

    def _change(self, machine: _Machine, thread: int, call: int, arguments: list[int]) -> tuple[str, str] | None:
        if call in machine.descriptors:
            name, place = machine.descriptors[call]
            found = [_target(thread, arguments[place])]
        else:
            name, places = machine.paths[call]
            found = [_path(thread, None if at is None else arguments[at], arguments[path]) for at, path in places]
        for path in found:
            if path.startswith(f"{self.root}/"):
                return name, path.removeprefix(f"{self.root}/")
        return None


def _target(thread: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{thread}/fd/{ctypes.c_int(descriptor).value}")
    except OSError:
        return ""


def _path(thread: int, directory: int | None, pointer: int) -> str:
    try:
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(pointer)
            text = os.fsdecode(memory.read(4096).split(b"\0")[0])
    except OSError:
        return ""
    if text.startswith("/") or directory is None or ctypes.c_int(directory).value == _AT_FDCWD:
        return text
    return f"{_target(thread, directory)}/{text}"
