"""What the documentation says is so: its commands and options exist, its examples run, its promises have their tests.

That its own links resolve is Sphinx's to check, in `make docs`.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from tests import public_api
from tests.admin.endpoint import FakeRemote
from tests.test_layout import ARROWS
from tests.watchdog import watched
from tests.wire.relay_process import RelayProcess
from triorelay import __all__ as public_names
from triorelay.admin._metrics import Metrics
from triorelay.cli._config import relay_config
from triorelay.cli._main import COMMANDS, load
from triorelay.cli._settings import OPTIONS
from triorelay.cli._sources import load_settings
from triorelay.protocol import CloseReason, DropReason, Refusal
from triorelay.relay import RealmStatus
from triorelay.testing import open_relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
DOCS, README = ROOT / "docs", ROOT / "README.md"
EXAMPLES, PROMETHEUS = DOCS / "examples", DOCS / "how-to" / "prometheus"
FRONT = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "docker" / "README.md"]
PAGES = [*FRONT, DOCS / "index.md", *sorted(DOCS.glob("[!_]*/**/*.md"))]
RUNBOOK, DESIGN = DOCS / "how-to" / "runbook.md", DOCS / "explanation" / "design.md"


def page_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The code blocks of a page that are in one of these languages."""
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        if language in languages:
            yield text


def rows(page: Path) -> list[str]:
    return [line for line in page.read_text().splitlines() if line.startswith("| ")]


# -- what is named exists


@pytest.mark.parametrize("page", FRONT, ids=page_name)
def test_links_of_the_front_pages_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_that_are_shown_have_the_options_that_are_shown(page: Path) -> None:
    for block in blocks(page, "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.findall(r"(?:^|[\s|&(])triorelay ([a-z][^|&<>)]*)", line):
                name, *words = shlex.split(command, comments=True)
                assert name in COMMANDS, line
                known = {option for parameter in parameters(name) for option in parameter.opts}
                given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
                assert given <= known | {"--help"}, line


def parameters(name: str) -> list[click.Parameter]:
    return load(name).params


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_configurations_that_are_shown_are_valid(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        relay_config(load_settings({}, {}, str(file)))


def test_the_complete_configuration_is_valid() -> None:
    config = relay_config(load_settings({}, {}, str(EXAMPLES / "relay.toml")))
    assert [principal.name for principal in config.principals] == ["planner", "arm"]


# -- every promise has its test


def test_the_tests_that_promises_name_exist() -> None:
    text = (DOCS / "explanation" / "promises.md").read_text()
    named = set(re.findall(r"`(tests/\S+?)::(\w+)`", text))
    assert len(named) > 50
    missing = {(path, name) for path, name in named if name not in functions_of(ROOT / path)}
    assert missing == set()


def functions_of(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_promise_names_what_shows_it() -> None:
    text = (DOCS / "explanation" / "promises.md").read_text()
    promises = re.findall(r"^(.+)\n: (?:.+\n)+\n((?:  - .+\n)*)", text, re.MULTILINE)
    assert len(promises) > 30
    assert [what for what, tests in promises if not re.search(r"`(tests/\S+::\w+|make [a-z]+)`", tests)] == []
    assert len(promises) == len(re.findall(r"^: ", text, re.MULTILINE))


# -- the reference is complete


@pytest.fixture(scope="module")
def extension() -> Any:
    spec = importlib.util.spec_from_file_location("documented_commands", DOCS / "_ext" / "commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_command_with_every_option(extension: Any) -> None:
    parts = re.split(r"^## triorelay ", extension.commands(), flags=re.MULTILINE)[1:]
    sections = {part.partition("\n")[0]: part for part in parts}
    assert list(sections) == list(COMMANDS)
    for name, section in sections.items():
        for parameter in parameters(name):
            shown = parameter.opts if isinstance(parameter, click.Option) else [parameter.make_metavar(context(name))]
            assert all(option in section for option in shown), (name, shown)


def context(name: str) -> click.Context:
    return click.Context(load(name))


def test_the_reference_has_every_setting(extension: Any) -> None:
    table = extension.settings()
    for option in OPTIONS:
        assert f"| `{option.key}` | `{option.flag}" in table


def test_the_reference_has_every_public_name_once() -> None:
    pages = [page.read_text() for page in sorted((DOCS / "reference" / "api").glob("*.md"))]
    entries = re.findall(r"^\.\. auto\w+:: triorelay\.(\w+)$", "\n".join(pages), re.MULTILINE)
    assert sorted(entries) == sorted({*public_names, "blocking", "testing"} - {"__version__"})


def test_the_list_of_the_public_api_is_the_public_api() -> None:
    assert public_api.FILE.read_text() == public_api.text(), "the API changed: `make reference` writes the list anew"


def test_the_list_has_functions_methods_fields_and_members_of_enums() -> None:
    listed = public_api.text().splitlines()
    assert "triorelay.CloseReason.LEFT = 1" in listed
    assert "triorelay.Backoff.first: float = 0.1" in listed
    assert "async def triorelay.Client.flush(self) -> None" in listed
    assert "def triorelay.Relay.drain(self) -> None" in listed
    assert any(line.startswith("async with triorelay.open_client(address: ") for line in listed)


async def test_the_reference_has_every_metric_and_alerts_ask_for_no_other() -> None:
    realm = RealmStatus(
        realm="r", relay="a", up=True, elsewhere=[], shared=[], lost=0, garbage=0, reconnects=0, confirmed_seconds=0
    )
    async with open_relay() as relay:
        relay.relay.remote = FakeRemote(realm)
        text = Metrics(relay.relay).reply().body.decode()
    metrics = set(re.findall(r"^# TYPE (triorelay_\w+)", text, re.MULTILINE))
    reference = (DOCS / "reference" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(triorelay_\w+)`", reference, re.MULTILINE)) == metrics
    for file in [PROMETHEUS / "alerts.yaml", DOCS / "how-to" / "prometheus.md"]:
        assert set(re.findall(r"\btriorelay_[a-z_]+", file.read_text())) <= metrics


def test_the_runbook_has_a_row_for_every_reason_and_every_refusal() -> None:
    first_cells = [row.split(" | ")[0] for row in rows(RUNBOOK)]
    for drop in DropReason:
        assert f"| `{drop.value}`" in first_cells
    for reason in CloseReason:
        assert f"| `{reason.label}`" in first_cells
    for refusal in Refusal:
        assert f"| {int(refusal)}, `{refusal.label}`" in first_cells


def test_alerts_know_only_reasons_and_outcomes_that_there_are() -> None:
    text = (PROMETHEUS / "alerts.yaml").read_text()
    named = {word for words in re.findall(r'(?:reason|outcome)[!=~]+"([^"]+)"', text) for word in words.split("|")}
    ours = {drop.value for drop in DropReason} | {reason.label for reason in CloseReason}
    assert named <= ours | {refusal.label for refusal in Refusal} | {"address"}


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    "check",
    [("check", "rules", "alerts.yaml"), ("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yaml")],
    ids=" ".join,
)
def test_prometheus_agrees(require: Callable[[str], str], check: tuple[str, ...]) -> None:
    result = subprocess.run([require("promtool"), *check], cwd=PROMETHEUS, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


# -- examples run, and README shows them as they are


@pytest.mark.parametrize(
    ("language", "example"),
    [("python", "hello.py"), ("sh", "three_lines.sh"), ("diff", "article/tcp.diff")],
)
def test_readme_shows_the_example_as_it_is(language: str, example: str) -> None:
    assert (EXAMPLES / example).read_text() in blocks(README, language)


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., str]:
    """A function that runs words in a directory where `triorelay` is a command, and returns what they printed."""
    commands = tmp_path / "commands"
    commands.mkdir()
    program = commands / "triorelay"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m triorelay "$@"\n')
    program.chmod(0o755)

    def run(*words: str) -> str:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRIORELAY_")}
        settings = {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        with watched(
            subprocess.Popen(words, cwd=tmp_path, env={**inherited, **settings}, stdout=subprocess.PIPE, text=True)
        ) as process:
            printed, _ = process.communicate()
        assert process.returncode == 0, printed
        return printed

    return run


def test_three_lines_of_shell(shell: Callable[..., str], tmp_path: Path) -> None:
    with RelayProcess(tmp_path, "--admin", f"unix:{tmp_path}/server_socket.admin"):
        printed = shell("sh", "-c", f". {EXAMPLES}/three_lines.sh; wait")
    assert all(f"A {letter}\n" in printed for letter in "hello")
    assert "accepted 5" in printed


def test_the_first_relay_of_the_tutorial(shell: Callable[..., str]) -> None:
    printed = shell("sh", str(EXAMPLES / "first_relay.sh"))
    assert "hello" in printed
    assert "accepted 5   written 5" in printed


@pytest.mark.needs("openssl")
def test_certificates_of_an_authority_of_one_s_own(shell: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "docker").symlink_to(ROOT / "docker")
    assert shell("sh", str(EXAMPLES / "own_ca.sh")).endswith("relay.pem: OK\ncertificates/arm.example.pem: OK\n")
    files = [f"--tls-cert={tmp_path}/certificates/relay.pem", f"--tls-key={tmp_path}/certificates/relay.key"]
    client_ca = f"--tls-client-ca={tmp_path}/certificates/ca.pem"
    with RelayProcess(tmp_path, "--tls=127.0.0.1:0", *files, client_ca) as relay:
        port = re.search(r"tls:127\.0\.0\.1:(\d+)", relay.lines[-1])
        assert port is not None
        receiver = relay.claim(b"B")
        shell(
            *("triorelay", "send", f"--relay=tls:localhost:{port[1]}", "--id=a", "--tls-ca=certificates/ca.pem"),
            *("--tls-cert=certificates/arm.example.pem", "--tls-key=certificates/arm.example.key", "B", "hello"),
        )
        receiver.expect(b"ahaealalao")


def test_the_design_page_has_the_parts_and_the_imports_that_the_layout_allows() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", DESIGN.read_text(), re.MULTILINE))
    shown = {part: set(re.findall(r"`(\w+)`", imports)) for part, imports in table.items()}
    allowed = {part: arrows for part, arrows in ARROWS.items() if not part.startswith("_")}
    assert table.pop("cli") == "everything"
    assert shown | {"cli": allowed["cli"]} == allowed


@pytest.mark.parametrize("way", ["a frame", "a hello", "a drain", "a client's send"])
def test_a_way_has_five_steps_that_name_the_files(way: str) -> None:
    (text,) = re.findall(rf"^## The way of {way}\n(.*?)^## ", DESIGN.read_text(), re.MULTILINE | re.DOTALL)
    steps = re.findall(r"^\d\. `(_\w+)`: ", text, re.MULTILINE)
    package = ROOT / "triorelay" / ("client" if "client" in way else "relay")
    assert len(steps) == len(re.findall(r"^\d\. ", text, re.MULTILINE)) == 5
    for name in re.findall(r"`(_\w+)`", text):
        assert (package / f"{name}.py").exists(), name
