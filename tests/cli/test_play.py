"""`play`, as a process, against a relay that is one too."""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

from tests.cli.clients import client
from tests.cli.processes import PATIENCE, assert_one_line, command, environment, relay, run
from tests.cli.test_admin import join
from tests.cli.test_record import recording, stop, write_recording
from triorelay.recording import Run
from triorelay.recording._reader import RecordingReader

if TYPE_CHECKING:
    import socket
    from pathlib import Path

MS = 1_000_000


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk
        data += chunk
    return data


def runs_in(path: Path) -> list[Run]:
    with path.open("rb") as file:
        return [entry for entry in RecordingReader(file).entries() if isinstance(entry, Run)]


def test_a_run_is_recorded_and_played_back_byte_for_byte_with_its_timing(tmp_path: Path) -> None:
    pace = [0, 10, 35, 400, 401, 720, 721, 1180, 1200, 1570, 1800, 2040]
    script = [Run(time * MS, 65 + number % 3, 66, bytes(range(number, 256, 7))) for number, time in enumerate(pace)]
    write_recording(tmp_path / "script.mcap", script)
    with relay(cwd=tmp_path):
        for name, played in (("first.mcap", "script.mcap"), ("second.mcap", "first.mcap")):
            with recording(name, cwd=tmp_path) as process:
                assert run("play", played, cwd=tmp_path).returncode == 0
                assert stop(process)[0] == 0
    # Order is promised for each pair, and kept between pairs as well as time is.
    script.sort(key=lambda run: (run.source, run.time))
    first, second = (
        sorted(runs_in(tmp_path / name), key=lambda run: run[1:2]) for name in ("first.mcap", "second.mcap")
    )
    assert [run[1:] for run in first] == [run[1:] for run in script]
    assert [run[1:] for run in second] == [run[1:] for run in script]
    for original, played_again in ((script, first), (first, second)):
        off = [
            abs((again.time - played_again[0].time) - (then.time - original[0].time))
            for then, again in zip(original, played_again, strict=True)
        ]
        # A loaded machine is late; what ignores the pauses is about 700 ms off.
        assert statistics.median(off) < 250 * MS, off


def test_every_client_that_sent_then_sends_again(tmp_path: Path) -> None:
    write_recording(tmp_path / "run.mcap", [Run(1, 65, 88, b"a1"), Run(2, 67, 88, b"c"), Run(3, 65, 88, b"a2")])
    with relay(cwd=tmp_path) as running, join(tmp_path, b"X") as x:
        running.wait_for("client joined id=X")
        result = run("play", "run.mcap", cwd=tmp_path)
        joined = {running.wait_for("client joined") for _ in range(2)}
        got = read_exactly(x, 10)
    assert (result.returncode, result.stdout) == (0, "")
    assert re.fullmatch(r"played 5 frames as A, C, \d+\.\d ms late \(median\)\n", result.stderr)
    assert sorted(re.findall(r" id=(\w)", " ".join(joined))) == ["A", "C"]
    assert bytes(got[index + 1] for index in range(0, 10, 2) if got[index] == 65) == b"a1a2"


def test_it_can_be_played_as_one_client_to_one_client_and_as_fast_as_possible(tmp_path: Path) -> None:
    day = 86_400_000 * MS
    write_recording(tmp_path / "run.mcap", [Run(0, 65, 66, b"one"), Run(day, 67, 68, b"two")])
    with relay(cwd=tmp_path), join(tmp_path, b"A"), join(tmp_path, b"X") as x:
        result = run("play", "run.mcap", "--as", "Z", "--to", "X", "--speed", "inf", cwd=tmp_path)
        assert read_exactly(x, 12) == b"ZoZnZeZtZwZo"
    assert result.stderr.startswith("played 6 frames as Z")


def test_a_faster_or_slower_pace_is_kept(tmp_path: Path) -> None:
    write_recording(tmp_path / "run.mcap", [Run(0, 65, 88, b"1"), Run(4_000 * MS, 65, 88, b"2")])
    with relay(cwd=tmp_path), join(tmp_path, b"X"), recording("again.mcap", cwd=tmp_path) as process:
        began = time.monotonic()
        assert run("play", "run.mcap", "--speed", "8", cwd=tmp_path).returncode == 0
        took = time.monotonic() - began
        stop(process)
    one, two = runs_in(tmp_path / "again.mcap")
    # The program takes the half second at least; in the recording it is shorter if the first was recorded late.
    assert took > 0.5
    assert two.time - one.time < 3_900 * MS


def test_step_by_step_each_run_is_shown_and_waits_for_enter(tmp_path: Path) -> None:
    write_recording(tmp_path / "run.mcap", [Run(0, 65, 88, b"1"), Run(1, 65, 88, b"2"), Run(2, 65, 88, b"3")])
    with relay(cwd=tmp_path), join(tmp_path, b"X") as x, client("play", "--step", "run.mcap", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for byte in (b"1", b"2"):
            assert process.stdout.readline().endswith(b"A to X  %s  %s\n" % (byte.hex().encode(), byte))
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert read_exactly(x, 2) == b"A" + byte
        assert b"A to X" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read().decode() == "played 2 frames as A\n"


def test_a_sender_to_a_destination_that_does_not_read_holds_up_no_other(tmp_path: Path) -> None:
    flood = [Run(number, 65, 89, bytes(20_000)) for number in range(100)]
    write_recording(tmp_path / "run.mcap", [*flood, Run(101, 66, 88, b"through")])
    with (
        relay("--stall-timeout", "25", cwd=tmp_path),
        join(tmp_path, b"X") as x,
        join(tmp_path, b"Y"),
        subprocess.Popen(command("play", "run.mcap"), cwd=tmp_path, env=environment({})) as process,
    ):
        assert read_exactly(x, 14) == b"BtBhBrBoBuBgBh"
        assert process.poll() is None
        process.kill()


# -- what may be wrong


def test_an_id_that_is_taken_is_one_line_and_nothing_is_sent(tmp_path: Path) -> None:
    write_recording(tmp_path / "run.mcap", [Run(0, 65, 88, b"1"), Run(1, 67, 88, b"2")])
    with relay(cwd=tmp_path), join(tmp_path, b"C"), join(tmp_path, b"X") as x:
        result = run("play", "run.mcap", cwd=tmp_path)
        assert_one_line(result, 1, "the relay refused id C: the id is taken .*; --as ID plays it as another client")
        assert run("send", "--id", "E", "X", "!", cwd=tmp_path).returncode == 0
        assert read_exactly(x, 2) == b"E!"


def test_a_recording_of_another_relay_is_played_and_said_so(tmp_path: Path) -> None:
    with relay("--unix", "elsewhere", cwd=tmp_path), relay(cwd=tmp_path), join(tmp_path, b"X") as x:
        assert run("record", "--admin", "elsewhere.admin", "--for", "0", "other.mcap", cwd=tmp_path).returncode == 0
        result = run("play", "other.mcap", cwd=tmp_path)
        assert result.returncode == 0
        first, second = result.stderr.splitlines()
        assert re.fullmatch(
            r"other.mcap was recorded at unix:elsewhere on host \S+, and is played at unix:server_socket", first
        )
        assert second == "played 0 frames as no client"
        assert run("send", "--id", "A", "X", "!", cwd=tmp_path).returncode == 0
        assert read_exactly(x, 2) == b"A!"


def test_it_says_which_destinations_are_not_there(tmp_path: Path) -> None:
    write_recording(tmp_path / "run.mcap", [Run(0, 65, 88, b"1"), Run(0, 65, 0, b"?"), Run(0, 65, 89, b"2")])
    with relay(cwd=tmp_path), join(tmp_path, b"X") as x:
        result = run("play", "run.mcap", cwd=tmp_path)
        assert read_exactly(x, 2) == b"A1"
    assert result.returncode == 0
    assert result.stderr.splitlines()[0] == "not there: Y; the relay drops frames to them"
    assert result.stderr.splitlines()[1].startswith("played 2 frames")


def test_the_whole_runs_of_a_cut_file_are_played(tmp_path: Path) -> None:
    write_recording(tmp_path / "run.mcap", [Run(1, 65, 88, b"whole")])
    (tmp_path / "run.mcap").write_bytes((tmp_path / "run.mcap").read_bytes()[:-100])
    with relay(cwd=tmp_path), join(tmp_path, b"X") as x:
        result = run("play", "run.mcap", cwd=tmp_path)
        assert read_exactly(x, 10) == b"AwAhAoAlAe"
    assert result.returncode == 0
    assert result.stderr.splitlines()[0].startswith("triorelay: run.mcap is cut off or damaged")
