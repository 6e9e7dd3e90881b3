"""The manifests for Kubernetes and compose: Pod Security admits them, the relay understands them, logs are bounded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from triorelay.cli._main import load

ROOT = Path(__file__).parents[1]
MANIFESTS = sorted((ROOT / "docs" / "how-to" / "kubernetes").glob("*.yaml"))
COMPOSE = sorted((ROOT / "docker").glob("compose*.yaml"))
ADMITTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def pods() -> list[Any]:
    """Every Pod's specification, with the name of its file and its own for messages."""
    return [
        pytest.param(document["spec"]["template"]["spec"], id=f"{path.name}-{document['metadata']['name']}")
        for path in MANIFESTS
        for document in yaml.safe_load_all(path.read_text())
        if "template" in document["spec"]
    ]


def test_the_manifests_are_found() -> None:
    assert [path.name for path in MANIFESTS] == ["realm.yaml", "relay.yaml"]
    assert len(pods()) == 3


@pytest.mark.parametrize("pod", pods())
def test_pod_security_restricted_admits_a_pod(pod: dict[str, Any]) -> None:
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    of_all = pod["securityContext"]
    for volume in pod.get("volumes", []):
        assert set(volume) - {"name"} <= ADMITTED_VOLUMES
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        of_one = container["securityContext"]
        assert {**of_all, **of_one}["runAsNonRoot"] is True
        assert {**of_all, **of_one}["runAsUser"] > 0
        assert {**of_all, **of_one}["seccompProfile"] == {"type": "RuntimeDefault"}
        assert of_one["allowPrivilegeEscalation"] is False
        assert of_one["capabilities"] == {"drop": ["ALL"]}
        assert not of_one.get("privileged")
        assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize("pod", pods())
def test_a_relay_accepts_the_options_and_probes_of_the_manifests(pod: dict[str, Any]) -> None:
    for container in pod["containers"]:
        if container["name"] != "relay":
            continue
        probes = [container[probe]["exec"]["command"][1:] for probe in ("startupProbe", "livenessProbe")]
        for command, *arguments in [container["args"], *probes]:
            assert load(command).make_context(command, list(arguments)).params


def test_services_lead_to_ports_that_their_pods_have() -> None:
    for path in MANIFESTS:
        documents = list(yaml.safe_load_all(path.read_text()))
        ports = {
            document["spec"]["template"]["metadata"]["labels"]["app"]: {
                port["name"]
                for container in document["spec"]["template"]["spec"]["containers"]
                for port in container.get("ports", [])
            }
            for document in documents
            if document["kind"] == "Deployment"
        }
        for document in documents:
            if document["kind"] == "Service":
                wanted = {port["targetPort"] for port in document["spec"]["ports"]}
                assert wanted <= ports[document["spec"]["selector"]["app"]]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_no_service_of_compose_fills_the_disk_with_its_log(path: Path) -> None:
    services = yaml.safe_load(path.read_text())["services"]
    assert services
    for service in services.values():
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}


@pytest.mark.parametrize(("port", "shown"), [("1234", "1234"), ("", "PORT"), (None, "9736")])
def test_prepare_names_the_port_that_is_published(tmp_path: Path, port: str | None, shown: str) -> None:
    (tmp_path / "token").write_text("secret\n")
    environment = {key: value for key, value in os.environ.items() if key != "ADMIN_PORT"}
    if port is not None:
        environment["ADMIN_PORT"] = port
    command = [str(ROOT / "docker" / "prepare"), str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == f"The dashboard: http://127.0.0.1:{shown}/#token=secret\n"
