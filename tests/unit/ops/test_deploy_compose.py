"""docker-compose.yml: what it asks for, what it lets out, and what it holds back."""

import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.permissions import USERS
from contracts.service import REQUIRED
from contracts.settings import describe, load_settings, variable
from tests.deployment import COMPOSE, ROOT, mounts, read_compose, read_image, references, seconds

TOKEN = "RETOLD_DISCORD_TOKEN"  # noqa: S105 - its name
LONG_RUNNING = ("nats", "capture", "mixer", "gateway", "keeper", "nginx", "metrics", "prometheus", "grafana")
OURS = ("capture", "mixer", "gateway", "keeper", "metrics", "retold", "doctor")
# capture/recording.py waits so long for the server to take everything, gateway/app.py for downloads
NEEDED_GRACE_S = {"nats": 10, "capture": 60, "mixer": 10, "gateway": 15, "nginx": 15}


@pytest.fixture
def compose() -> dict[str, Any]:
    return read_compose({TOKEN: "token"})


def test_one_variable_is_required():
    """The bot's token; everything else has a default, and without the token nothing starts."""
    assert {name for name, operator in references() if operator == ":?"} == {TOKEN}
    assert all(operator for _, operator in references())
    with pytest.raises(KeyError, match=TOKEN):
        read_compose({})


def test_every_setting_in_it_is_known_and_right(compose: dict[str, Any]):
    """Each service would accept its environment, and whoever sets a setting outside sets the same one inside."""
    known = {name for name, _, _ in describe()}
    assert {name for name, _ in references() if name.startswith("RETOLD_")} <= known
    for name in OURS:
        files = {"RETOLD_NATS_SEED_FILE": ""}  # it is there when it runs
        environ = compose["services"][name]["environment"] | image(compose, name).environ | files
        load_settings(environ, required=REQUIRED.get(name, ()))
    chosen = {setting: "3" for setting, _ in references() if setting.startswith("RETOLD_")}
    for service in read_compose(chosen)["services"].values():
        for setting, value in service["environment"].items():
            assert setting not in chosen or value == "3", setting


def test_only_capture_has_the_token_and_who_tries_it():
    """Nobody else could lose it."""
    services = read_compose({TOKEN: "the-token"})["services"]
    assert [name for name, service in services.items() if "the-token" in str(service)] == ["capture", "doctor"]


def test_only_nginx_is_published_and_on_this_machine_only(compose: dict[str, Any]):
    """One port, on loopback unless the operator says otherwise; whoever need not reach the world cannot."""
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"nginx": ["127.0.0.1:8080:8080"]}
    moved = read_compose({TOKEN: "token", "RETOLD_GATEWAY_HOST": "0.0.0.0", "RETOLD_GATEWAY_PORT": "9000"})  # noqa: S104 - what an operator may set
    assert moved["services"]["nginx"]["ports"] == ["0.0.0.0:9000:8080"]
    assert moved["services"]["capture"]["environment"]["RETOLD_PUBLIC_URL"] == "http://127.0.0.1:9000"
    assert compose["networks"].pop("outside") == {}
    assert set(map(str, compose["networks"].values())) == {str({"internal": True})}
    assert on_network(compose, "outside") == {"capture", "gateway", "keeper", "nginx", "doctor", "alertmanager"}
    assert on_network(compose, "bus") == {"init", "nats", *OURS}
    assert on_network(compose, "front") == {"nginx", "gateway", "grafana"}


def test_no_service_has_more_rights_than_it_needs(compose: dict[str, Any]):
    """Each runs as nobody in particular, cannot write to its own files, and cannot take the machine."""
    for name, service in compose["services"].items():
        assert service["user"] == image(compose, name).user == "10001:10001", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert not service.keys() & {"privileged", "network_mode", "pid", "ipc", "devices"}, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}, name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_services_start_again_start_in_order_and_get_time_to_end(compose: dict[str, Any]):
    """Whoever needs NATS waits until it is well; whoever has something to finish may finish it."""
    services = compose["services"]
    assert {name for name, service in services.items() if "profiles" not in service} == {"init", *LONG_RUNNING}
    for name in LONG_RUNNING:
        assert services[name]["restart"] == "unless-stopped"
        assert seconds(services[name]["stop_grace_period"]) > NEEDED_GRACE_S.get(name, 1)
        assert services[name]["healthcheck"].keys() >= {"interval", "timeout", "retries", "start_period"}
        assert "test" not in services[name]["healthcheck"] or name in {"keeper", "metrics"}, "the image knows how"
        assert services[name]["healthcheck"].get("test") or image(compose, name).health, name
    for name in OURS:
        assert services[name]["depends_on"] == {"nats": {"condition": "service_healthy"}}
    assert services["nats"]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    assert services["init"]["restart"] == "no"
    for name, needed in (("nginx", "gateway"), ("prometheus", "metrics"), ("grafana", "prometheus")):
        assert services[name]["depends_on"] == {needed: {"condition": "service_healthy"}}


def test_the_private_keys_stay_with_those_who_sign(compose: dict[str, Any]):
    """The gateway sees the public halves, and cannot write even those; mixer and nats see none."""
    services = compose["services"]
    holders = {name for name in services if "capture" in mounts(services[name]).values()}
    assert holders == {"capture", "retold"}
    assert "public-keys:/data/keys/public:ro" in services["gateway"]["volumes"]
    assert mounts(services["capture"])["/data/keys/public"] == "public-keys"
    for name in ("capture", "gateway", "retold"):
        assert image(compose, name).environ["RETOLD_DATA"] == "/data"
    assert {volume for service in services.values() for volume in mounts(service).values()} - {""} == set(
        compose["volumes"]
    )


def test_each_service_is_given_its_own_nkey_and_no_other(compose: dict[str, Any]):
    """Read-only, from a volume that only `init` and that one service have; the store's key only NATS has."""
    services = compose["services"]
    users = {name: name for name in ("capture", "mixer", "gateway", "keeper")}
    users |= {"metrics": "monitor", "retold": "operator", "doctor": "operator"}
    for name, service in services.items():
        keys = [volume for volume in service.get("volumes", ()) if volume.startswith("key-")]
        if name == "init":
            assert {volume.split(":")[0] for volume in keys} == {f"key-{user}" for user in (*USERS, "grafana")}
            assert all(volume.split(":")[1] == f"/init/{volume.split(':')[0][4:]}" for volume in keys)
        elif name in users:
            assert keys == [f"key-{users[name]}:/keys:ro"]
            assert service["environment"][variable("nats_seed_file")] == "/keys/nats.nk"
        else:
            assert keys == (["key-grafana:/keys:ro"] if name == "grafana" else [])
    assert {name for name in services if "nats-config" in mounts(services[name]).values()} == {"init", "nats"}
    assert "nats-config:/config:ro" in services["nats"]["volumes"]


def test_no_secret_stands_in_the_environment(compose: dict[str, Any]):
    """But the bot's token, which whoever sets it has: the environment is shown by `docker inspect`."""
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            assert not any(word in name for word in ("PASSWORD", "SECRET", "TOKEN", "KEY")) or (
                value.startswith("/") or not value or value == "token"
            ), name


def test_images_are_named_after_the_version(compose: dict[str, Any]):
    """An upgrade makes new images instead of silently running old ones."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for service in compose["services"].values():
        assert service["image"].endswith(f":{version}")
        assert service["build"]["context"] == "."
        assert (ROOT / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("location", ["/", "/_cache/"])
def test_nginx_treats_the_gateway_as_the_shipped_configuration_does(location: str):
    """Line by line, but for the promise of TLS, which is made where TLS ends."""
    nginx = ROOT / "ops" / "deploy" / "nginx"
    shipped, ours = (block(nginx / name, location) for name in ("retold.conf", "compose.conf"))
    assert len(ours) > 8
    assert ours == [line for line in shipped if "Strict-Transport-Security" not in line]


def test_the_schema_of_compose_accepts_the_file(tmp_path: Path):
    """Checked by its own linter, which refuses a file that is wrong somewhere."""
    linter = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    if not linter.exists():
        pytest.skip("there is no check-jsonschema here")
    command = [str(linter), "--builtin-schema", "vendor.compose-spec"]
    accepted = subprocess.run([*command, str(COMPOSE)], capture_output=True, text=True, check=False)
    assert accepted.returncode == 0, accepted.stdout
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("read_only: true", "read_only_: true", 1))
    assert subprocess.run([*command, str(wrong)], capture_output=True, check=False).returncode == 1


def test_docker_compose_itself_accepts_the_file():
    """Its own parser, where the client and its plugin are installed; no engine is needed."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no `docker compose` here")
    command = [docker, "compose", "--file", str(COMPOSE), "--profile", "cli", "--profile", "alerts", "config"]
    accepted = subprocess.run(command, env={TOKEN: "token"}, capture_output=True, text=True, check=False)
    assert accepted.returncode == 0, accepted.stderr
    ours = read_compose({TOKEN: "token"})["services"]
    theirs = yaml.safe_load(accepted.stdout)["services"]
    assert {name: service["environment"] for name, service in theirs.items()} == {
        name: service["environment"] for name, service in ours.items()
    }
    refused = subprocess.run([*command, "--quiet"], env={}, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert TOKEN in refused.stderr


def image(compose: dict[str, Any], name: str) -> Any:
    return read_image(ROOT / compose["services"][name]["build"]["dockerfile"])


def on_network(compose: dict[str, Any], network: str) -> set[str]:
    return {name for name, service in compose["services"].items() if network in service["networks"]}


def block(path: Path, location: str) -> list[str]:
    """The lines of a location."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    first = lines.index(f"location {location} {{")
    return lines[first + 1 : lines.index("}", first)]
