"""Images built by buildah, and containers run without a container engine.

A container here is what the kernel makes of one: a file system mounted read-only, an unprivileged
user, and a process that is number 1 among its own.
"""

import asyncio
import configparser
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.processes import PATIENCE, ROOT, Daemon

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

PYTHON = "localhost/python"
"""The base that stands in for the official Python image."""

MOUNTS = """\
mount --make-rprivate / && mount --bind "$1" "$1" && mount --rbind /dev "$1/dev" &&
mount -t proc proc "$1/proc" && mount -o remount,ro,bind "$1" "$1" && shift && exec "$@"
"""
"""A script that mounts the folder in its first argument as a root file system, and then runs the
rest of its arguments."""


@dataclass(frozen=True)
class Image:
    """An image as it was built: what runs in it, and its file system, unpacked."""

    name: str
    config: dict[str, Any]
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """The variables that the image sets."""
        return dict(variable.split("=", 1) for variable in self.config["Env"])

    @property
    def command(self) -> list[str]:
        """What runs when nobody says otherwise."""
        return [*self.config["Entrypoint"], *self.config["Cmd"]]

    def inside(self, *command: str, **variables: str) -> list[str]:
        """Return the command that runs `command` in a container of its own."""
        user = self.config["User"]
        every = {"HOME": "/", **self.environ, **variables}  # HOME is the engine's doing
        environ = [f"{name}={value}" for name, value in every.items()]
        return [
            *("unshare", "--mount", "--pid", "--fork"),
            *("sh", "-c", MOUNTS, "sh", str(self.folder)),
            *("chroot", f"--userspec={user}", "--groups=", str(self.folder)),
            *("env", "--ignore-environment", f"--chdir={self.config['WorkingDir']}", *environ),
            *command,
        ]

    def run(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            self.inside(*command, **variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def healthcheck(self, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run the health check once, as Docker would do time and again."""
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.run(*command, **variables)


class Container(Daemon):
    """A container that runs a daemon."""

    @classmethod
    async def start(cls, image: Image, *command: str, **variables: str) -> "Container":
        """Start a container, with the image's own command unless another is given."""
        process = await asyncio.create_subprocess_exec(
            *image.inside(*(command or image.command), **variables),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def listening(self) -> Self:
        """Wait until it listens."""
        await super().listening()
        return self

    @property
    def pid(self) -> int:
        """The process number 1 of the container, as it is numbered outside."""
        outer = self.process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(children[0])

    def status(self) -> dict[str, list[str]]:
        """Return what the kernel tells of process number 1 (proc(5))."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}

    def send(self, number: signal.Signals) -> None:
        """Send a signal to process number 1."""
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """End it, if it has not ended."""
        if self.process.returncode is None:
            self.send(signal.SIGKILL)
        await self.process.communicate()


class Builder:
    """buildah, with a store in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environ = {**os.environ, "BUILDAH_ISOLATION": "chroot"}

    def build(self, context: Path, name: str, **arguments: str) -> Image:
        """Build the Dockerfile in a folder."""
        self._buildah(
            *("build", "--format=docker", f"--tag={name}", *self._secrets()),
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            str(context),
        )
        return self._unpacked(name)

    def make_python(self, base: Path) -> None:
        """Make an image of Debian's Python, from `base` if an earlier run has left it there."""
        if not base.exists():
            tree = self._folder / "debian"
            packages = "--include=ca-certificates,python3,python3-venv"
            self._run("debootstrap", "--variant=minbase", packages, "bookworm", str(tree))
            self._run("tar", "-C", str(tree), "-cf", f"{base}.part", "--exclude=*.deb", ".")
            shutil.rmtree(tree)
            Path(f"{base}.part").rename(base)
        container = self._buildah("from", "scratch")
        self._buildah("add", container, str(base), "/")
        self._buildah("config", "--env=PATH=/usr/local/bin:/usr/bin:/bin", container)
        self._buildah("commit", "--format=docker", "--rm", container, PYTHON)

    def size(self, name: str) -> int:
        """Return the bytes that an image takes, unpacked."""
        (image,) = json.loads(self._buildah("images", "--json", name))
        number, unit = image["size"].split()
        return int(float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit])

    def remove_all(self) -> None:
        """Remove images and containers."""
        self._buildah("rm", "--all")
        self._buildah("rmi", "--all", "--force")

    def _unpacked(self, name: str) -> Image:
        container = self._buildah("from", name)
        config = json.loads(self._buildah("inspect", container))["Docker"]["config"]
        return Image(name, config, Path(self._buildah("mount", container)))

    def _secrets(self) -> list[str]:
        """Pass on how this machine reaches the package index."""
        secrets = [f"--secret=id=pip,src={self._pip_configuration()}"]
        if Path(CERTIFICATES).exists():
            secrets.append(f"--secret=id=certificates,src={CERTIFICATES}")
        return secrets

    def _pip_configuration(self) -> Path:
        lines = self._run(sys.executable, "-m", "pip", "config", "list").splitlines()
        pairs = (line.split("=", 1) for line in lines)
        parser = configparser.RawConfigParser()
        options = {name.rpartition(".")[2]: value.strip("'") for name, value in pairs}
        options.pop("constraint", None)  # a file of this machine's, and versions are the project's
        parser["global"] = options
        path = self._folder / "pip.conf"
        with path.open("w") as file:
            parser.write(file)
        return path

    def _buildah(self, *arguments: str) -> str:
        store = [f"--root={self._folder}/images", f"--runroot={self._folder}/run"]
        return self._run("buildah", *store, "--storage-driver=vfs", *arguments)

    def _run(self, *command: str) -> str:
        result = subprocess.run(
            command, env=self._environ, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout.strip()
