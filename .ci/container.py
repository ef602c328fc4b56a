"""Tests the Dockerfile without a container engine.

    container.py

Carries out the build stage's instructions in a directory of its own, with this machine's Rust and
the repository's target directory; then runs the binary as the final stage says, as its user, in a
root that holds nothing but what the base image has for it: read-only, without a shell.

What it cannot test: that the base images exist under their names, and what else they hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import server

ROOT = Path(__file__).resolve().parent.parent
# Libraries of the distroless `cc` image that a Rust binary may be linked to.
IN_BASE_IMAGE = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6"}
# Every one of the distroless images has it.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SHELLS = ["bin/sh", "usr/bin/sh", "bin/bash"]


@dataclass(frozen=True)
class Instruction:
    name: str
    arguments: str

    def words(self) -> list[str]:
        """The arguments, or the items of the exec form, without flags."""
        if self.arguments.startswith("["):
            return json.loads(self.arguments)
        return [word for word in shlex.split(self.arguments) if not word.startswith("--")]


def stages(dockerfile: str) -> list[list[Instruction]]:
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    instructions = [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]
    starts = [at for at, each in enumerate(instructions) if each.name == "FROM"]
    return [instructions[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def build(stage: list[Instruction], directory: Path) -> None:
    """Carries out a build stage; `directory` stands for its working directory."""
    (directory / "target").symlink_to(target_directory())
    output, defaults = "", {}
    for instruction in stage:
        if instruction.name == "COPY":
            copy(instruction.words(), directory)
        elif instruction.name == "RUN":
            output = run(instruction.arguments, directory, defaults)
        elif instruction.name == "ARG":
            name, _, default = instruction.arguments.partition("=")
            defaults[name] = default
        elif instruction.name not in ("FROM", "WORKDIR"):
            raise SystemExit(f"{instruction.name} is not understood in a build stage")
    compiled = re.findall(r"^\s*Compiling (\S+)", output, re.M)
    if compiled != ["launchdarkly-connector"]:
        raise SystemExit(f"the last step compiles {compiled}: dependencies are not cached before")


def target_directory() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    target.mkdir(parents=True, exist_ok=True)
    return target.resolve()


def copy(words: list[str], directory: Path) -> None:
    """Copies with times, as a build context is; only what .dockerignore lets into it."""
    *sources, destination = words
    for source in sources:
        if f"!{source}" not in (ROOT / ".dockerignore").read_text().splitlines():
            raise SystemExit(f".dockerignore keeps {source} out")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, directory / destination, dirs_exist_ok=True)
        else:
            shutil.copy2(ROOT / source, directory / destination)


def run(command: str, directory: Path, defaults: dict[str, str]) -> str:
    print(f"RUN {command}", flush=True)
    environment = {key: text for key, text in os.environ.items() if key != "CARGO_TARGET_DIR"}
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env=environment | defaults,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    print("\n".join(done.stderr.splitlines()[-5:]), flush=True)
    if done.returncode != 0:
        raise SystemExit(f"exit code {done.returncode}")
    return done.stderr


class Image:
    """What the final stage says about running."""

    def __init__(self, stage: list[Instruction]):
        of = {each.name: each for each in stage}
        self.user = of["USER"].arguments
        self.volume = of["VOLUME"].arguments
        self.entrypoint = of["ENTRYPOINT"].words()
        self.command = of["CMD"].words()
        self.health = json.loads(of["HEALTHCHECK"].arguments.partition("CMD")[2])
        self.environment = dict(word.split("=", 1) for word in of["ENV"].words())
        self.binary = Path(self.entrypoint[0])
        binaries = [each.words() for each in stage if each.name == "COPY"]
        [self.built] = [source for source, to in binaries if Path(to) == self.binary.parent]


def shared_libraries(binary: Path) -> list[Path]:
    """The libraries that a binary loads, if the base image has them all."""
    shown = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
    found = [Path(path) for path in re.findall(r"(?:=> )?(/\S+) \(0x", shown)]
    strange = {
        path.name
        for path in found
        if path.name not in IN_BASE_IMAGE and not path.name.startswith("ld-linux")
    }
    if strange or "not found" in shown:
        raise SystemExit(f"the base image does not have {strange or shown}")
    print(f"needs only {', '.join(sorted(path.name for path in found))}")
    return found


def make_root(image: Image, binary: Path, root: Path, keys: bytes) -> None:
    """Lays out the image's file system, as its base image and the final stage make it."""
    for path in [*shared_libraries(binary), CERTIFICATES]:
        place(path, root / path.relative_to("/"))
    place(binary, root / image.binary.relative_to("/"))
    mount = root / image.environment["CONNECTOR_KEYS_FILE"].lstrip("/")
    mount.parent.mkdir(parents=True)
    mount.write_bytes(keys)
    uid, _, gid = image.user.partition(":")
    os.chown(mount, int(uid), int(gid))
    mount.chmod(stat.S_IRUSR)
    volume = root / image.volume.lstrip("/")
    volume.mkdir()
    os.chown(volume, int(uid), int(gid))
    if any((root / shell).exists() for shell in SHELLS):
        raise SystemExit("there is a shell in the root")


def place(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source.resolve(), to)


def contained(image: Image, root: Path, command: list[str]) -> list[str]:
    """A command inside the root: read-only but for the volume, as the image's user."""
    mounts = """
        mount --bind "$1" "$1"
        mount --bind "$1/$2" "$1/$2"
        mount -o remount,bind,ro "$1"
        if touch "$1/x" 2>/dev/null; then echo "the root is not read-only" >&2; exit 99; fi
        root=$1 user=$3; shift 3; exec chroot --userspec="$user" "$root" "$@"
    """
    volume = image.volume.lstrip("/")
    inside = ["sh", "-euc", mounts, "sh", str(root), volume, image.user, *command]
    return ["unshare", "--mount", *inside]


def check_refusal(image: Image, root: Path) -> None:
    """As it is, the image says what must be decided before it listens for everyone."""
    command = contained(image, root, [*image.entrypoint, *image.command])
    refused = subprocess.run(
        command, env=image.environment, capture_output=True, text=True, timeout=30, check=False
    )
    if refused.returncode in (0, 99) or "CONNECTOR_LISTEN" not in refused.stderr:
        raise SystemExit(f"exit code {refused.returncode}:\n{refused.stderr}")
    print(f"without CONNECTOR_INSECURE: exit code {refused.returncode}, and says why")


def check_life(image: Image, root: Path) -> None:
    """Starts on another port than the image's, becomes healthy by the image's own check, and stops
    on SIGTERM."""
    listen = server.free_addresses().server
    environment = {**image.environment, "CONNECTOR_LISTEN": listen}
    command = contained(image, root, [*image.entrypoint, *image.command])
    with ended(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)) as process:
        probe = contained(image, root, image.health)
        server.wait_until(
            process,
            lambda: (
                subprocess.run(probe, env=environment, capture_output=True, check=False).returncode
                == 0
            ),
        )
        status = Path(f"/proc/{process.pid}/status").read_text()
        ids = re.search(r"^Uid:\s+(\d+)", status, re.M)[1]
        if ids != image.user.partition(":")[0]:
            raise SystemExit(f"runs as user {ids}")
        print(f"healthy as user {ids} in a read-only root")
        server.stop(process)
    files = sorted(path.name for path in (root / image.volume.lstrip("/")).iterdir())
    print(f"stopped by SIGTERM with exit code 0; the volume holds {', '.join(files)}")


@contextlib.contextmanager
def ended(process: subprocess.Popen):
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def no_stub_left_behind():
    """Cargo tells a package by its place in the workspace and the age of its files, wherever the
    workspace is: an empty build that is not replaced would pass for one of the repository."""
    try:
        yield
    except BaseException:
        clean = ["cargo", "clean", "--quiet", "--release", "--package", "launchdarkly-connector"]
        subprocess.run(clean, cwd=ROOT, check=False)
        raise


def main() -> None:
    server.end_on_sigterm()
    first, last = stages((ROOT / "Dockerfile").read_text())
    image = Image(last)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory, "build")
        work.mkdir()
        with no_stub_left_behind():
            build(first, work)
        workdir = next(each.arguments for each in first if each.name == "WORKDIR")
        binary = work / Path(image.built).relative_to(workdir)
        keys = subprocess.run([binary, "keygen"], check=True, capture_output=True).stdout
        root = Path(directory, "root")
        root.mkdir(mode=0o755)
        make_root(image, binary, root, keys)
        # The image's user must be able to reach it.
        Path(directory).chmod(0o755)
        check_refusal(image, root)
        check_life(image, root)


if __name__ == "__main__":
    if len(sys.argv) != 1:
        sys.exit(__doc__)
    main()
