"""Runs a program with a connector and its sandbox beside it.

    server.py BINARY COMMAND...

Starts `BINARY serve --sandbox` on free ports with a database and keys of its own, waits until it
is healthy, and runs the command with `{server}` and `{sandbox}` in its arguments replaced by the
addresses. Stops the server with SIGTERM, which it must answer with exit code 0.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Generous: the machine may be busy with something else.
START_SECONDS = 30
STOP_SECONDS = 40


@dataclass(frozen=True)
class Addresses:
    """Where a server listens, as host and port."""

    server: str
    sandbox: str

    def environment(self) -> dict[str, str]:
        return {"CONNECTOR_LISTEN": self.server, "CONNECTOR_SANDBOX_LISTEN": self.sandbox}


def free_addresses() -> Addresses:
    """Two ports that are free now; both are held until both are known."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [each.getsockname()[1] for each in (one, two)]
    return Addresses(*(f"127.0.0.1:{port}" for port in ports))


@contextlib.contextmanager
def running(command: list[str], addresses: Addresses, binary: Path, **options) -> Iterator[None]:
    """Runs a server until the end of the block; shows its log if anything goes wrong."""
    environment = {**clean_environment(), **addresses.environment()}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stderr=log, **options
        )
        try:
            wait_until(process, lambda: is_healthy(addresses, binary))
            yield
            stop(process)
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-20_000:])
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def clean_environment() -> dict[str, str]:
    """Without settings of the connector that the machine may have."""
    return {key: text for key, text in os.environ.items() if not key.startswith("CONNECTOR_")}


def wait_until(process: subprocess.Popen, is_healthy: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with exit code {process.returncode}")
        if is_healthy():
            return
        time.sleep(0.1)
    raise SystemExit(f"the server is not healthy after {START_SECONDS} s")


def is_healthy(addresses: Addresses, binary: Path) -> bool:
    command = [binary, "health", "--server", f"http://{addresses.server}"]
    probe = subprocess.run(command, env=clean_environment(), capture_output=True, check=False)
    return probe.returncode == 0


def stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"the server runs on {STOP_SECONDS} s after SIGTERM") from None
    if code != 0:
        raise SystemExit(f"the server ended with exit code {code} after SIGTERM")


def end_on_sigterm() -> None:
    """Makes SIGTERM unwind the program, so that what it started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main(binary: str, *command: str) -> int:
    end_on_sigterm()
    program = Path(binary).resolve()
    addresses = free_addresses()
    names = {"server": addresses.server, "sandbox": f"http://{addresses.sandbox}"}
    with tempfile.TemporaryDirectory() as directory:
        keys = Path(directory, "connector.keys")
        keys.write_bytes(
            subprocess.run([program, "keygen"], check=True, capture_output=True).stdout
        )
        keys.chmod(0o600)
        serve = [program, "serve", "--sandbox", "--keys-file", keys]
        with running(serve, addresses, program, cwd=directory):
            return subprocess.run(
                [each.format(**names) for each in command], check=False
            ).returncode


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
