"""Rules that no linter knows: settings, compose and Kubernetes agree with the code.

Each rule is a function without arguments that returns what is wrong, one sentence each.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from shared.models_catalog import CatalogError, read_catalog
from shared.settings import CLIENT_VARIABLES, PREFIX, Settings
from tests.deploy_images import ROOT, stages

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
STARTERS = ("TEXT_MODEL", "EMBEDDING_MODEL", "IMAGE_MODEL")
PUBLISHED = {"api", "s3"}
_OWNER, _API, _HANDS = "POSTGRES_PASSWORD", "POSTGRES_API_PASSWORD", "POSTGRES_WORKER_PASSWORD"
PASSWORDS = {
    "postgres": (_OWNER,),
    "migrate": (_OWNER,),
    "roles": (_OWNER, _API, _HANDS),
    "api": (_API,),
    **dict.fromkeys(("upkeep", "worker", "trainer", "worker-gpu", "trainer-gpu"), (_HANDS,)),
}
"""Of the database, by service."""
CLOSING_SECONDS = 20
"""What a worker may take after its drain: commits, the lease, the listener."""
READ_BY_OTHERS = {"GUNICORN_CMD_ARGS"}
_LOAD_EACH = """
import json, os, sys
from shared.settings import SettingsError, load_settings
for name, environment in json.load(sys.stdin).items():
    os.environ.clear()
    os.environ.update(environment)
    try:
        load_settings()
    except SettingsError as error:
        print(f"{name} would not start: {error}")
"""
_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")
_SETTING = re.compile(rf"\b{PREFIX}[A-Z0-9_]+")


def names_of_settings() -> list[str]:
    """Every PRESSRUN_ variable that a file here mentions is a setting."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
    files = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return [
        f"{path.relative_to(ROOT)}: {name} is no setting"
        for path in files
        for name in sorted(set(_SETTING.findall(path.read_text(errors="replace"))) - known)
    ]


def compose_settings() -> list[str]:
    """Each server in compose.yaml starts with env.example filled in, every line of it in use."""
    given = read_env(DEPLOY / "env.example", commented=True)
    secrets = {name: "0123456789abcdef" for name, value in given.items() if not value}
    environment = {**given, **secrets}
    servers = {}
    for name, service in services().items():
        if service.get("env_file"):
            own = service.get("environment") or {}
            settings = {key: interpolate(str(value), environment) for key, value in own.items()}
            servers[name] = {**_stage_environment(service), **environment, **settings}
    return refusals(servers)


def env_example() -> list[str]:
    """env.example has what compose.yaml asks for, and nothing that is used nowhere."""
    given = read_env(DEPLOY / "env.example", commented=True)
    asked = {match[1] for match in _VARIABLE.finditer(COMPOSE.read_text())}
    others = {name for name in given if not name.startswith(PREFIX)}
    unused = others - asked - READ_BY_OTHERS
    return [
        *(f"{name} is asked for, but not in env.example" for name in sorted(asked - set(given))),
        *(f"{name} is in env.example, but used nowhere" for name in sorted(unused)),
    ]


def compose_rules() -> list[str]:
    """Ports, volumes, health, stopping time, images and build targets in compose.yaml."""
    document = load_yaml(COMPOSE)[0]
    problems = []
    for name, service in document["services"].items():
        if service.get("ports") and name not in PUBLISHED:
            problems.append(f"{name} publishes a port")
        if _needs_health(service) and not _has_health(service):
            problems.append(f"{name} has no healthcheck, nor does its Dockerfile decide on one")
        if ":" not in str(service["image"]):
            problems.append(f"{name}: the image names no version")
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if not source.startswith(".") and source not in document["volumes"]:
                problems.append(f"{name}: there is no volume {source}")
            if source.startswith(".") and not (DEPLOY / source).exists():
                problems.append(f"{name}: there is no file {source}")
        for needed, how in service.get("depends_on", {}).items():
            problems += _dependency_problems(name, needed, how, document["services"])
        if "build" in service and _target(service) not in stages(_dockerfile(service)):
            problems.append(f"{name}: its Dockerfile has no stage {_target(service)!r}")
    return problems + _stopping_problems(document["services"])


def catalogs() -> list[str]:
    """models.toml is a catalog, and its models are what the starter-models image makes."""
    problems = []
    for path in (DEPLOY / "models.toml", DEPLOY / "kubernetes" / "models.toml"):
        try:
            entries = read_catalog(path)
        except CatalogError as error:
            problems.append(str(error))
            continue
        makes = _constants(ROOT / "worker" / "starter_models.py")
        made = {f"/models/{makes[key]}" for key in STARTERS}
        problems += [
            f"{path.name}: nothing makes {entry.source}"
            for entry in entries
            if entry.source.startswith("/") and entry.source not in made
        ]
    return problems


def kubernetes() -> list[str]:
    """The kustomization names files that exist, and each container's settings are complete."""
    folder = DEPLOY / "kubernetes"
    [base] = load_yaml(folder / "kustomization.yaml")
    generated = [file for one in base["configMapGenerator"] for file in _generated_from(one)]
    named = [*base["resources"], *generated]
    problems = [f"there is no {name}" for name in named if not (folder / name).is_file()]
    shared = read_env(folder / "settings.env") | read_env(folder / "secrets.env.example")
    databases = read_env(folder / "databases.env.example")
    tags = {image["name"] for image in base["images"]}
    servers = {}
    for resource in base["resources"]:
        for document in load_yaml(folder / resource):
            for container in _containers(document):
                if container["image"] not in tags:
                    problems.append(f"{resource}: the image {container['image']} has no tag")
                own = {item["name"]: _value(item, databases) for item in container.get("env", [])}
                if "envFrom" in container:
                    servers[f"{resource} {container['name']}"] = {**shared, **own}
    return problems + refusals(servers)


def compose_passwords() -> list[str]:
    """Each service in compose.yaml is given the database's passwords of its kind, and no others."""
    given = read_env(DEPLOY / "env.example", commented=True)
    passwords = {f"secret of {name}": name for name in given if name.startswith("POSTGRES_")}
    environment = {**given, **{name: secret for secret, name in passwords.items()}}
    problems = []
    for service, described in services().items():
        own = {
            key: interpolate(str(value), {name: environment.get(name) or "x" for name in given})
            for key, value in (described.get("environment") or {}).items()
        }
        effective = {**(environment if described.get("env_file") else {}), **own}
        has = {
            name
            for secret, name in passwords.items()
            if any(secret in value for value in effective.values())
        }
        if has != set(PASSWORDS.get(service, ())):
            problems.append(f"{service} is given {sorted(has)}")
    return problems


RULES = (
    names_of_settings,
    compose_settings,
    compose_passwords,
    env_example,
    compose_rules,
    catalogs,
    kubernetes,
)


# --- reading --------------------------------------------------------------------------------------


def load_yaml(path: Path) -> list[Any]:
    """The documents of a file, anchors and merges resolved."""
    return list(YAML(typ="safe").load_all(path.read_text()))


@cache
def services() -> dict[str, Any]:
    return dict(load_yaml(COMPOSE)[0]["services"])


def read_env(path: Path, *, commented: bool = False) -> dict[str, str]:
    """Names and values; with ``commented`` also those behind ``# ``, which show a default."""
    start = r"(?:# )?" if commented else ""
    pairs = re.findall(rf"^{start}([A-Z][A-Z0-9_]*)=(.*)$", path.read_text(), re.MULTILINE)
    return dict(pairs)


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """As Compose does. Raises KeyError for a variable that is required and missing."""

    def value(match: re.Match[str]) -> str:
        name, kind, default = match[1], match[2], match[3]
        return (environment.get(name) or default) if kind == "-" else environment[name]

    return _VARIABLE.sub(value, text)


def refusals(environments: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Who would not start with its environment, and why. In a process apart: settings come from
    the environment, and checks run on threads."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD_EACH],
        cwd=ROOT,
        env={},
        input=json.dumps(environments),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines() if done.returncode == 0 else done.stderr.splitlines()


def _dockerfile(service: Mapping[str, Any]) -> Path:
    return ROOT / str(service["build"]["dockerfile"])


def _target(service: Mapping[str, Any]) -> str:
    return str(service["build"].get("target", "api"))


def _stage_environment(service: Mapping[str, Any]) -> dict[str, str]:
    return stages(_dockerfile(service))[_target(service)].environment


def _needs_health(service: Mapping[str, Any]) -> bool:
    return not str(service.get("restart", "")).startswith("on-failure")


def _has_health(service: Mapping[str, Any]) -> bool:
    if "build" not in service:
        return "healthcheck" in service
    return bool(stages(_dockerfile(service))[_target(service)].all("HEALTHCHECK"))


def _dependency_problems(
    name: str, needed: str, how: Mapping[str, str], known: Mapping[str, Any]
) -> list[str]:
    if needed not in known:
        return [f"{name} depends on {needed}, which is not there"]
    ends = not _needs_health(known[needed])
    if ends != (how["condition"] == "service_completed_successfully"):
        return [f"{name} waits for {needed} the wrong way"]
    if how["condition"] == "service_healthy" and not _has_health(known[needed]):
        return [f"{name} waits for the health of {needed}, which has no healthcheck"]
    return []


def _stopping_problems(known: Mapping[str, Any]) -> list[str]:
    least = Settings.model_fields["drain_seconds"].default + CLOSING_SECONDS
    return [
        f"{name} is killed {service.get('stop_grace_period')} after SIGTERM, before it has drained"
        for name, service in known.items()
        if "worker" in str(service.get("build", "")) and _needs_health(service)
        if int(str(service.get("stop_grace_period", "10s")).removesuffix("s")) < least
    ]


def _generated_from(generator: Mapping[str, Any]) -> list[str]:
    return [*generator.get("envs", []), *generator.get("files", [])]


def _value(variable: Mapping[str, Any], databases: Mapping[str, str]) -> str:
    if "value" in variable:
        return str(variable["value"])
    reference = variable["valueFrom"]["secretKeyRef"]
    assert reference["name"] == "pressrun-databases", reference
    return databases[reference["key"]]


def _containers(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    pod = document.get("spec", {}).get("template", {}).get("spec", {})
    yield from pod.get("initContainers", [])
    yield from pod.get("containers", [])


def _constants(path: Path) -> dict[str, Any]:
    return {
        node.targets[0].id: node.value.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
