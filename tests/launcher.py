"""Starts `triorelay` as processes of its own, without the time that Python takes to load the package.

Most of what a test costs is the start of processes: two tenths of a second of processor time for each relay, and there
are more than a thousand starts.

1. Each process that runs tests has one launcher, a process that has loaded the package and does nothing else. It forks
   for each start; what comes then is what comes after the imports of `python -m triorelay`: the same command line,
   working directory, variables and standard streams, signals as a new program finds them, an exit code.
2. The fork is a child of the test's process, so that `subprocess.Popen` waits for it as for any other: the launcher's
   child forks it and ends, and the test's process takes orphans for as long as that lasts.
3. What Python reads before a program begins, it reads at a real start only: so other variables of Python or of the
   locale than the launcher's mean a real start, and so does `loaded=False`. So does a measurement of coverage, which
   would miss what the launcher loaded.
   A Python whose `Popen` is made otherwise than this file expects means a real start too.
4. A program ends as any other: threads, exit handlers, streams. It does not take its modules apart, which would copy
   most of the memory that it shares with the launcher.
5. The launcher ends with its test process, whose end closes the socket.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import inspect
import json
import os
import pkgutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, AnyStr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOURCE_TREE = Path(__file__).parents[1]
PR_SET_CHILD_SUBREAPER = 36
DETAILS = "cwd", "env", "p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"
"""What the private method of `Popen` that starts a process has among its parameters."""
LARGEST = 1 << 17
"""Bytes of a command line and its variables. A packet of a Unix socket may have 200 KB."""


def for_python(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Python reads before a program begins."""
    return {name: value for name, value in environment.items() if name.startswith(("PYTHON", "LC_", "LANG"))}


class Program(subprocess.Popen[AnyStr]):
    """A `triorelay` that runs: a `Popen` that differs in how it starts."""

    def __init__(self, *arguments: str, env: Mapping[str, str], loaded: bool = True, **options: Any) -> None:
        """Start `triorelay` with `arguments`.

        Args:
            arguments: the words after the program's name.
            env: its variables.
            loaded: fork it from the launcher.
            options: those of `Popen` for the working directory, the standard streams and their text.
        """
        self._words = arguments
        self._loaded = loaded
        command = [sys.executable, "-m", "triorelay", *arguments]
        super().__init__(command, env=env, **options)

    def _execute_child(self, *details: Any) -> None:
        real = super()._execute_child  # type: ignore[misc]
        given = dict(zip(inspect.signature(real).parameters, details, strict=False))
        pipes: list[Any] = [given.get(name) for name in DETAILS[2:]]
        if (
            not self._loaded
            or "COVERAGE_PROCESS_CONFIG" in os.environ
            or None in pipes
            or given.get("env") is None
            or for_python(given["env"]) != launcher().for_python
        ):
            real(*details)
            return
        streams = [stream if end == -1 else end for stream, end in enumerate((pipes[0], pipes[3], pipes[5]))]
        request = {"words": self._words, "cwd": os.fspath(given["cwd"]), "env": dict(given["env"])}
        try:
            self.pid = launcher().start(request, streams)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


class Launcher:
    """The launcher of this process."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(SOURCE_TREE)}
        self.for_python = for_python(environment)
        self._lock = threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                cwd=SOURCE_TREE,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.end)

    def start(self, request: Mapping[str, object], streams: Sequence[int]) -> int:
        """Start a program with these standard streams; return the id of its process, a child of this one."""
        with self._lock:
            self._adopt_orphans(True)
            try:
                socket.send_fds(self._requests, [json.dumps(request).encode()], streams)
                answer = self._requests.recv(LARGEST)
            finally:
                self._adopt_orphans(False)
        assert answer, "the launcher has ended"
        return int(answer)

    def _adopt_orphans(self, adopt: bool) -> None:
        if self._libc.prctl(PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")

    def end(self) -> None:
        self._requests.close()
        self._process.wait()


@functools.cache
def launcher() -> Launcher:
    return Launcher()


def serve(requests: socket.socket) -> None:
    """Fork a program for each request, until there are no more; in the program, run it."""
    import triorelay

    for module in pkgutil.walk_packages(triorelay.__path__, "triorelay."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    while True:
        data, streams, _, _ = socket.recv_fds(requests, LARGEST, 3)
        if not data:
            return
        read, write = os.pipe()
        if between := os.fork():
            os.close(write)
            os.waitpid(between, 0)
            requests.send(os.read(read, 64))
            for each in (read, *streams):
                os.close(each)
        elif pid := os.fork():
            os.write(write, str(pid).encode())
            os._exit(0)
        else:
            requests.detach()
            become(streams, **json.loads(data))


def become(streams: list[int], words: list[str], cwd: str, env: dict[str, str]) -> None:
    """Go on as a program that was just started with these streams, words, working directory and variables."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(len(streams), 256)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [str(SOURCE_TREE / "triorelay" / "__main__.py"), *words]
    sys.orig_argv = [sys.executable, "-m", "triorelay", *words]
    kinds = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = (
        open(  # noqa: SIM115
            number,
            "w" if number else "r",
            buffering=1 if number == 2 else -1,
            encoding=kind.encoding,
            errors=kind.errors,
            newline="\n",
            closefd=False,
        )
        for number, kind in enumerate(kinds)
    )
    from triorelay.cli import main

    # The handler that is registered first runs last.
    atexit.register(keep_modules)
    main()


def keep_modules() -> None:
    """Hide the modules from Python's end."""
    modules = list(sys.modules.items())
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(modules))
    for name, _ in modules:
        if name not in ("builtins", "io", "os", "sys"):
            del sys.modules[name]


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
