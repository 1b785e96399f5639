"""What is in deploy/ fits Kubernetes, Aperta's settings and its command line, and holds no secret."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from backend import REPORTS_OFF
from backend.cli import app
from backend.config import Settings, SpeechConfig
from backend.services.storage import StorageConfig
from scripts.hashed_requirements import render

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
COMPOSE = ROOT / "deploy" / "compose.yaml"
VERSIONS = ("1.30", "1.37")
NOT_OURS = {"HF_HOME", *REPORTS_OFF}
SECRET = re.compile("KEY|SECRET|PASSWORD|TOKEN|DATABASE_URL")
FIELDS = {
    name.upper(): field
    for config in (Settings, SpeechConfig, StorageConfig)
    for name, field in config.model_fields.items()
}

Document = dict[str, Any]


@cache
def manifests(folder: str) -> tuple[tuple[str, Document], ...]:
    return tuple(
        (f"{path.parent.name}/{path.name}", document)
        for path in sorted((KUBERNETES / folder).glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    )


BASE = [(name, item) for name, item in manifests("base") if item["kind"] != "Kustomization"]


SECRETS = {item["metadata"]["name"]: item["stringData"] for _, item in BASE if item["kind"] == "Secret"}


def pods(items: list[tuple[str, Document]]) -> Iterator[tuple[Document, Document]]:
    """Workload and its pod's spec."""
    for _, item in items:
        if "template" in item.get("spec", {}):
            yield item, item["spec"]["template"]["spec"]


def containers(spec: Document) -> list[Document]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def identity(item: tuple[str, Document]) -> str:
    return f"{item[0]}:{item[1]['kind']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("item", [item for item in BASE if "keda" not in item[1]["apiVersion"]], ids=identity)
def test_manifests_fit_the_schemas_of_kubernetes(item: tuple[str, Document], version: str) -> None:
    kubernetes_validate.validate(item[1], version, strict=True)


@pytest.mark.parametrize("folder", ["base", "gpu"])
def test_a_kustomization_names_the_files_that_there_are(folder: str) -> None:
    [own] = [item for name, item in manifests(folder) if name.endswith("/kustomization.yaml")]
    named = {*own.get("resources", []), *(patch["path"] for patch in own.get("patches", []))}
    there = {path.name for path in (KUBERNETES / folder).glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert named - {"../base"} == there
    assert "../base" not in named or (KUBERNETES / folder / "../base/kustomization.yaml").exists()


def test_a_patch_of_gpu_meets_something_in_base() -> None:
    known = {(item["kind"], item["metadata"]["name"]) for _, item in BASE}
    patches = [item for name, item in manifests("gpu") if not name.endswith("/kustomization.yaml")]
    assert patches and all((item["kind"], item["metadata"]["name"]) in known for item in patches)


def commands() -> Iterator[tuple[str, list[str]]]:
    for name, item in [*BASE, *manifests("gpu")]:
        for _, spec in pods([(name, item)]):
            for container in containers(spec):
                if "args" in container:
                    yield f"{name}:{container['name']}", container["args"]
    for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items():
        if service.get("image") == "aperta":
            yield f"compose:{name}", service["command"]


@pytest.mark.parametrize(("where", "command"), [*commands()], ids=lambda value: value if isinstance(value, str) else "")
def test_commands_are_ones_that_aperta_has(where: str, command: list[str]) -> None:
    group = typer.main.get_command(app)
    assert command[0] == "aperta"
    rest = command[1:]
    while isinstance(getattr(group, "commands", None), dict):
        group = group.commands[rest.pop(0)]  # type: ignore[attr-defined]
    group.make_context(where, rest)


def environments() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every name that gets a value of its own, with the value."""
    for name, item in [*BASE, *manifests("gpu")]:
        if item["kind"] == "ConfigMap":
            yield name, item["data"]
        for _, spec in pods([(name, item)]):
            for container in containers(spec):
                yield name, {entry["name"]: entry["value"] for entry in container.get("env", [])}
    for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items():
        if service.get("image") == "aperta":
            yield f"compose:{name}", service.get("environment", {})


@pytest.mark.parametrize(
    ("where", "values"), [*environments()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_environments_are_settings_with_values_that_fit(where: str, values: dict[str, str]) -> None:
    assert set(values) <= set(FIELDS) | NOT_OURS, where
    plain = {name.lower(): value for name, value in values.items() if "${" not in value and value and name in FIELDS}
    for config in (Settings, SpeechConfig, StorageConfig):
        own = {name: value for name, value in plain.items() if name in config.model_fields}
        config(_env_file=None, **own)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "PYANNOTE_METRICS_ENABLED"])
def test_images_and_deployments_switch_reports_off(name: str) -> None:
    [shared] = [item["data"] for _, item in BASE if item["kind"] == "ConfigMap"]
    services = [yaml.safe_load(path.read_text())["services"] for path in (COMPOSE, ROOT / "compose.yaml")]
    own = [service["environment"] for found in services for service in found.values() if service["image"] == "aperta"]
    assert {environment[name] for environment in [shared, *own]} == {REPORTS_OFF[name]}
    assert f"{name}={REPORTS_OFF[name]} " in (ROOT / "Dockerfile").read_text()
    assert f"export {name} := {REPORTS_OFF[name]}\n" in (ROOT / "Makefile").read_text()


def test_no_manifest_holds_a_secret() -> None:
    for name, values in environments():
        literal = {
            key: value for key, value in values.items() if SECRET.search(key) and value and not key.startswith("MAX_")
        }
        if name.startswith("compose:"):
            literal = {key: value for key, value in literal.items() if "${" not in value}
        assert not literal, name
    [own] = [item for name, item in manifests("base") if item["kind"] == "Kustomization"]
    assert "secret.example.yaml" not in own["resources"]
    for name, given in SECRETS.items():
        assert set(given) <= set(FIELDS) | {"connection"}, name
        assert "CHANGE-ME" in "".join(given.values()) or name == "aperta-webhooks"


@pytest.mark.parametrize(
    ("workload", "container", "secrets"),
    [
        ("aperta-api", "migrate", ["aperta-migration"]),
        ("aperta-api", "api", ["aperta-api-keys", "aperta-database", "aperta-store", "aperta-webhooks"]),
        ("aperta-worker", "worker", ["aperta-database", "aperta-store", "aperta-webhooks"]),
    ],
)
def test_a_container_gets_the_secrets_that_it_needs_and_no_others(
    workload: str, container: str, secrets: list[str]
) -> None:
    [spec] = [spec for item, spec in pods(BASE) if item["metadata"]["name"] == workload]
    [own] = [item for item in containers(spec) if item["name"] == container]
    given = sorted(source["secretRef"]["name"] for source in own["envFrom"] if "secretRef" in source)
    assert given == secrets and set(given) <= set(SECRETS)


def test_the_secret_of_the_autoscaler_is_given_to_no_container() -> None:
    given = {
        source["secretRef"]["name"]
        for _, spec in pods(BASE)
        for container in containers(spec)
        for source in container.get("envFrom", [])
        if "secretRef" in source
    }
    assert given | {"aperta-autoscaler"} == set(SECRETS) and "aperta-autoscaler" not in given


def test_containers_are_confined_and_know_their_limits() -> None:
    for workload, spec in pods(BASE):
        where = workload["metadata"]["name"]
        assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"], where
        for container in containers(spec):
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"] and confined["capabilities"] == {"drop": ["ALL"]}, where
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"], where


def test_pods_have_only_the_connections_that_are_listed() -> None:
    policies = [item["spec"] for _, item in BASE if item["kind"] == "NetworkPolicy"]
    names = {workload["metadata"]["name"] for workload, _ in pods(BASE)}
    [deny] = [policy for policy in policies if not {"ingress", "egress"} & set(policy)]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert set(deny["podSelector"]["matchExpressions"][0]["values"]) == names
    incoming = {port["port"] for policy in policies for rule in policy.get("ingress", []) for port in rule["ports"]}
    outgoing = {port["port"] for policy in policies for rule in policy.get("egress", []) for port in rule["ports"]}
    served = {port["name"] for _, spec in pods(BASE) for item in spec["containers"] for port in item["ports"]}
    assert incoming == served and outgoing == {53, 5432, 443}


@pytest.mark.parametrize("path", [COMPOSE, ROOT / "compose.yaml"], ids=["fleet", "single"])
def test_services_of_compose_are_confined(path: Path) -> None:
    for name, service in yaml.safe_load(path.read_text())["services"].items():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] > 0, name
        if name != "s3":  # the file says why
            assert service["read_only"] and "/tmp" in service["tmpfs"], name


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-swift.txt", "constraints-supply.txt"])
def test_every_pin_has_the_hashes_of_its_files(name: str) -> None:
    pins = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    assert [
        line for line in pins if not re.fullmatch(r"[\w.-]+==\S+  #( server)?( dev)?( sha256:[0-9a-f]{64})+", line)
    ] == []


def test_what_the_project_needs_is_among_the_pins_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = (ROOT / "constraints.txt").read_text()
    for wanted, needs in (("server", project["dependencies"]), ("dev", project["optional-dependencies"]["dev"])):
        hashed = {line.partition("==")[0] for line in render(pins, wanted).splitlines() if "==" in line}
        assert {re.split(r"[\[<>=]", need)[0].replace(".", "-") for need in needs} <= hashed


def test_the_image_and_the_makefile_install_nothing_without_a_hash_but_extras() -> None:
    assert "pip install --require-hashes --no-deps -r requirements.txt" in (ROOT / "Dockerfile").read_text()
    by_version = re.findall(r"pip install --quiet -c constraints.txt -e '(.*)'", (ROOT / "Makefile").read_text())
    assert by_version == [".[dev,pyannote]", ".[dev,bench]"]


def test_the_image_has_a_user_of_its_own() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "USER 10001:10001" in dockerfile


def test_probes_ask_what_is_served() -> None:
    probes = {
        container["name"]: {kind: container[kind]["httpGet"] for kind in container if kind.endswith("Probe")}
        for _, spec in pods(BASE)
        for container in spec["containers"]
    }
    assert {kind: probe["path"] for kind, probe in probes["api"].items()} == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }
    assert {probe["path"] for probe in probes["worker"].values()} == {"/metrics"}


def test_a_worker_has_time_to_hand_back_what_it_is_at() -> None:
    margin_s = 20
    [worker] = [spec for workload, spec in pods(BASE) if workload["metadata"]["name"] == "aperta-worker"]
    assert worker["terminationGracePeriodSeconds"] >= drain_s(worker["containers"][0]["args"]) + margin_s
    service = yaml.safe_load(COMPOSE.read_text())["services"]["worker"]
    assert int(service["stop_grace_period"].removesuffix("s")) >= drain_s(service["command"]) + margin_s


def test_autoscaling_finds_what_it_scales_and_where_the_secret_is() -> None:
    known = {(item["kind"], item["metadata"]["name"]): item for _, item in BASE}
    scaled = known["ScaledObject", "aperta-worker"]["spec"]
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in known
    [trigger] = scaled["triggers"]
    authentication = known["TriggerAuthentication", trigger["authenticationRef"]["name"]]["spec"]
    [reference] = authentication["secretTargetRef"]
    assert reference["parameter"] == "connection"
    assert reference["name"] == "aperta-autoscaler" and reference["key"] in SECRETS[reference["name"]]
    assert float(trigger["metadata"]["targetQueryValue"]) > 0


def test_the_services_are_those_of_the_compose_file_for_one_machine() -> None:
    fleet, single = (yaml.safe_load(path.read_text())["services"] for path in (COMPOSE, ROOT / "compose.yaml"))
    for name in ("postgres", "s3"):
        assert fleet[name] == single[name]


def drain_s(command: list[str]) -> float:
    return float(command[command.index("--drain-s") + 1])
