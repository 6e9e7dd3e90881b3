"""`triorelay check`: whether a configuration is valid, and what its policy allows.

The relay's own code reads the files and decides, so the answers are what the relay would do.
"""

from ipaddress import ip_address
from itertools import groupby

import click

from ..protocol import ALL_IDS, ConfigError, TcpAddress, UnixAddress, id_name
from ..relay import Config, Peer, Policy, Principal, Refused, server_context
from ._config import admin_configs, cluster_config, parse_ip, ring_of
from ._effect import effective_config
from ._logging import one_line
from ._options import ID, param_type
from ._sources import load_settings

MOST_DIGITS = 10
"""Of a uid, which has 32 bits."""

PROOFS = "uid:N, certificate:NAME, token:PRINCIPAL or address:IP"


def parse_proof(text: str) -> tuple[str, str]:
    """Return kind and value of a proof, as in `uid:1000`; the value of a token is the principal that has it."""
    kind, _, value = text.partition(":")
    if kind not in ("uid", "certificate", "token", "address") or not value:
        raise ValueError(f"expected {PROOFS}, not {text!r}")
    if kind == "uid" and not (value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS):
        raise ValueError(f"a uid is a number, not {value!r}")
    return kind, str(parse_ip(value)) if kind == "address" else value


EPILOG = """
\b
Examples:
  triorelay check relay.toml
  triorelay check relay.toml --as uid:1000 --id P --to a
"""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(readable=False))
@click.option("--as", "proof", type=param_type("proof", parse_proof), help=f"A client: {PROOFS}.")
@click.option("--id", type=ID, help="May they hold this id?")
@click.option("--to", type=ID, help="May they send to this id?")
def check(file: str, proof: tuple[str, str] | None, id: int | None, to: int | None) -> int:
    """Validate a configuration, and show what its policy allows.

    With --as it answers yes (exit code 0) or no (1) and the rule: may they connect, hold --id, send to --to?
    """
    if proof is None and (id is not None or to is not None):
        raise click.UsageError("--id and --to need a client: name one with --as")
    try:
        loaded = load_settings({}, {}, file)
        config = effective_config(loaded, sockets=None)  # what systemd may hand over is unknown here
        for admin in admin_configs(loaded, config):
            admin.read_token()
        cluster_config(loaded)
        ring_of(loaded)
        policy = Policy(config)
        if config.tls_files is not None:
            server_context(config.tls_files)
    except click.UsageError as error:
        # The file is wrong, not the command.
        raise ConfigError(error.format_message()) from None
    if proof is None:
        for line in describe(config):
            click.echo(one_line(line))
        return 0
    allowed, why = judge(config, policy, proof, id, to)
    click.echo(one_line(f"{'yes' if allowed else 'no'}: {why}"))
    return 0 if allowed else 1


# -- one question


def judge(config: Config, policy: Policy, proof: tuple[str, str], id: int | None, to: int | None) -> tuple[bool, str]:
    """Return whether a client with `proof` may hold `id` and send to `to`, each unless None, and the rule."""
    kind, value = proof
    subject = f"a client with {value}'s token" if kind == "token" else f"{kind} {value}"
    peer = _peer(kind, value)
    try:
        grant = policy.grant(peer, _digest(policy, value) if kind == "token" else b"")
    except Refused as refused:
        return False, f"{subject}: {refused}"
    mapped = policy.id_without_hello(peer)
    if mapped and id not in (None, mapped):
        return False, f"{subject} is {id_name(mapped)} by the address map, and cannot be another"
    id = mapped or id
    if not config.principals:
        return True, f"{subject} may hold any id and send to any: no principal is named"
    subject = f"{subject} is {grant.principal}"
    for number, ids, key in ((id, grant.ids, "ids"), (to, grant.to or ALL_IDS, "to")):
        rule = f"principals.{grant.principal}.{key} is {show_ids(ids)}"
        if number is not None and number not in ids:
            return False, f"{subject}, and {rule}, without {id_name(number)}"
        if number is not None:
            subject = f"{subject}; {rule}"
    return True, subject


def _peer(kind: str, value: str) -> Peer:
    match kind:
        case "uid":
            return Peer("unix", "", uid=int(value))
        case "address":
            return Peer("tcp", value, ip_address(value))
        case "certificate":
            return Peer("tls", "", certificate_names=(value,))
    return Peer("tls", "")


def _digest(policy: Policy, principal: str) -> bytes:
    digest = policy.token_digest_of(principal)
    if not digest:
        raise click.UsageError(f"--as: no principal {principal} has a token_file")
    return digest


# -- everything


def describe(config: Config) -> list[str]:
    """Return what the policy of `config` allows, in lines for people."""
    lines = [f"listens on: {', '.join(_listeners(config))}"]
    if config.tcp or config.tls:
        lines.append(f"without certificate or token from: {', '.join(map(str, config.allow)) or 'nowhere'}")
    if not config.principals:
        return [*lines, "no principal is named: every client that may connect may hold any id and send to any"]
    rows = [("principal", "proof", "may hold", "may send to", "reaches")]
    for one in config.principals:
        reached = ", ".join(other.name for other in config.principals if one.to & other.ids) or "none"
        rows.append((one.name, _proof(one), show_ids(one.ids), show_ids(one.to), reached))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for ip, id in config.address_map.items():
        allowed, why = judge(config, Policy(config), ("address", str(ip)), id, None)
        lines.append(f"address map: {ip} is {id_name(id)}{'' if allowed else f', but refused: {why}'}")
    return [*lines, "no other client may connect"]


def _listeners(config: Config) -> list[str]:
    return [
        *(str(UnixAddress(path)) for path in config.unix),
        *(str(TcpAddress(host or "*", port)) for host, port in config.tcp),
        *(str(TcpAddress(host or "*", port, tls=True)) for host, port in config.tls),
    ]


def _proof(principal: Principal) -> str:
    if principal.token_file is not None:
        return f"token in {principal.token_file}"
    if principal.uid is not None:
        return f"uid {principal.uid}"
    return f"address {principal.address}" if principal.address else f"certificate {principal.certificate}"


def show_ids(ids: frozenset[int]) -> str:
    """Return ids as they are written in a configuration, without the relay's own."""
    ids &= ALL_IDS
    if ids == ALL_IDS:
        return "*"
    # In a run of successive ids the distance between an id and its place is always the same.
    numbered = groupby(enumerate(sorted(ids)), key=lambda item: item[1] - item[0])
    runs = [[id for _, id in run] for _, run in numbered]
    return ",".join("-".join(_written(id) for id in dict.fromkeys((run[0], run[-1]))) for run in runs)


def _written(id: int) -> str:
    # These have a meaning of their own in a list.
    return f"0x{id:02x}" if chr(id) in ",-*" else id_name(id)
