"""The C programs: built once a run, then started for each measurement."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SOURCES = HERE / "c"
BUILT = ROOT / "build" / "benchmarks"
GENERATORS = ("flood", "pairs", "roundtrip", "fairness", "idle", "watch")
SHARED = ("link.c", "codec.c", "codec_frames.c", "codec_nats.c", "codec_mqtt.c", "codec_redis.c", "codec_dbus.c")
# The generators get all the optimization there is, so as not to be what is measured; the yardsticks what packages get.
GENERATOR_FLAGS = ("-std=gnu11", "-O3", "-Wall", "-Wextra")
YARDSTICK_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")
LOOK_AGAIN = 0.5  # seconds between looks at whether the server is still there


class Failed(Exception):
    """A measurement that came to nothing, in one line that says why."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the built programs are, and whether the generators speak TLS (OpenSSL's headers were there)."""

    directory: Path
    tls: bool

    def path(self, name: str) -> str:
        return str(self.directory / name)


def build(directory: Path = BUILT) -> Programs:
    """Compile everything; Failed where there is no compiler or a program does not compile."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Failed("no C compiler (Debian: apt install gcc libc6-dev)")
    directory.mkdir(parents=True, exist_ok=True)
    tls = _has_openssl(compiler)
    tls_flags, tls_libraries = (("-DWITH_TLS",), ("-lssl", "-lcrypto")) if tls else ((), ())
    shared = [str(SOURCES / name) for name in SHARED]
    for name in GENERATORS:
        source = str(SOURCES / f"{name}.c")
        _compile([compiler, *GENERATOR_FLAGS, *tls_flags, "-o", str(directory / name), source, *shared, *tls_libraries])
    for path in (SOURCES / "ideal_relay.c", ROOT / "tests" / "c" / "article_server.c"):
        _compile([compiler, *YARDSTICK_FLAGS, "-o", str(directory / path.stem), str(path)])
    return Programs(directory, tls)


def _has_openssl(compiler: str) -> bool:
    probe = "#include <openssl/ssl.h>\n"
    command = [compiler, "-E", "-x", "c", "-", "-o", os.devnull]
    return subprocess.run(command, input=probe, text=True, capture_output=True, check=False).returncode == 0


def _compile(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Failed(f"{command[-1]} does not compile: {result.stderr.strip().splitlines()[0]}")


def pin(core: int | None) -> tuple[str, ...]:
    """The head of a command that runs on one core only; nothing for None."""
    return () if core is None else ("taskset", "--cpu-list", str(core))


def generate(
    command: list[str], directory: Path, *, timeout: float, server: subprocess.Popen[bytes] | None = None
) -> dict[str, float]:
    """Run a generator and return the figures that it printed, or raise Failed.

    Its Unix names are bound in `directory`; `timeout` is in seconds. It is ended when the server ends before it.
    """
    generator = subprocess.Popen(
        command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        output, errors = _communicate(generator, server, time.monotonic() + timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"no result within {timeout:.0f} s") from None
    finally:
        generator.kill()
        generator.wait()
    if generator.returncode != 0:
        raise Failed(last_line(errors) or f"the generator ended with status {generator.returncode}")
    return figures(output)


def _communicate(
    generator: subprocess.Popen[str], server: subprocess.Popen[bytes] | None, deadline: float
) -> tuple[str, str]:
    while True:
        try:
            return generator.communicate(timeout=LOOK_AGAIN)
        except subprocess.TimeoutExpired:
            if server is not None and server.poll() is not None:
                raise Failed("no result") from None
            if time.monotonic() > deadline:
                raise


def figures(text: str) -> dict[str, float]:
    """The figures that a generator printed as JSON."""
    try:
        return {key: float(value) for key, value in json.loads(text).items()}
    except (ValueError, AttributeError):
        raise Failed(f"not a result: {text[:80]!r}") from None


def last_line(text: str) -> str:
    """The last line that is not empty, or nothing."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
