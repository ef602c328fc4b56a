"""Sends a file through a real nginx, and compares what arrived.

    PYTHONPATH=clients/python nginx.py BINARY

Starts a connector with its sandbox, and an nginx before it as this user, in a directory of its own
and on a free port of loopback. Two journeys of several megabytes: with the settings that
docs/operating.md gives, in one stream; and with nginx's default `client_max_body_size`, which cuts
every stream after a megabyte: `send` resumes until all is there.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
from reflected import Service

import server

PAGE = Path(__file__).resolve().parent.parent / "docs/operating.md"
# What nginx does unless it is told otherwise.
DEFAULTS = ""
# Well over a megabyte, in messages that are not compressed.
RECORDS = 50_000
START_SECONDS = 10
SEND_SECONDS = 120
ENVIRONMENT = "5a0000000000000000000001"
TOKEN = "api-00000000-0000-4000-8000-000000000001"


def configuration(directory: Path, port: int, upstream: str, settings: str) -> str:
    temporary = "\n".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 64; }}
http {{
    access_log {directory}/access.log;
    {temporary}
    server {{
        listen 127.0.0.1:{port} http2;
        {settings}
        location / {{ grpc_pass grpc://{upstream}; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(program: str, upstream: str, settings: str) -> Iterator[tuple[str, Path]]:
    """Runs nginx until the end of the block; yields its address and its directory."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        file = directory / "nginx.conf"
        file.write_text(configuration(directory, port, upstream, settings))
        log = directory / "error.log"
        process = subprocess.Popen(
            [program, "-p", name, "-e", str(log), "-c", str(file)], stdin=subprocess.DEVNULL
        )
        try:
            server.wait_until(process, lambda: listens(port))
            yield f"127.0.0.1:{port}", directory
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def advised() -> str:
    """The settings that the documentation gives for an nginx in front of the service."""
    lines = re.findall(r"^    ((?:client|grpc)_\w+ \w+;)$", PAGE.read_text(), re.M)
    if not lines:
        raise SystemExit("docs/operating.md has no settings of nginx")
    return " ".join(lines)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def create_destination(address: str, name: str) -> str:
    """Through nginx, by reflection: its streams pass too."""
    with grpc.insecure_channel(address) as channel:
        connector = Service(channel, "cdp.destinations.v1.DestinationConnector")
        destination = connector.call(
            "CreateDestination",
            {
                "parent": "organizations/acme",
                "destinationId": name,
                "destination": {
                    "displayName": name,
                    "action": "send-identifiers",
                    "launchDarkly": {"accessToken": TOKEN, "clientSideId": ENVIRONMENT},
                    "fieldMappings": [{"field": "context_key", "sources": ["user_id"]}],
                },
            },
        )
    return destination["name"]


def keys() -> list[str]:
    return [f"member-{number:06}@customers.example.com" for number in range(RECORDS)]


def send(binary: Path, address: str, destination: str, segment: str) -> str:
    """Sends every key; returns what was told on the way."""
    command = [binary, "send", "--server", f"http://{address}", "--destination", destination]
    command += ["--segment-id", segment, "--segment-name", segment, "--format", "csv"]
    command += ["--give-up-after", "60s"]
    sent = subprocess.run(
        command,
        input="\n".join(["user_id", *keys()]) + "\n",
        env=server.clean_environment(),
        capture_output=True,
        text=True,
        timeout=SEND_SECONDS,
        check=False,
    )
    told = sent.stdout + sent.stderr
    if sent.returncode != 0 or f"{RECORDS} records: {RECORDS} delivered, 0 failed" not in told:
        raise SystemExit(f"send ended with exit code {sent.returncode}:\n{told[-2000:]}")
    return told


def check_members(sandbox: str, segment: str) -> None:
    url = f"{sandbox}/_sandbox/segments/{ENVIRONMENT}/zeotap-{segment}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        members = json.load(answer)["members"]
    if sorted(members) != keys():
        raise SystemExit(f"{len(members)} members of {RECORDS}, or others")


def streams(directory: Path) -> int:
    """How many streams nginx has seen, whole or cut."""
    return (directory / "access.log").read_text().count("/SendIdentifiers ")


def journey(program: str, binary: Path, addresses: server.Addresses, name: str, settings: str):
    with nginx(program, addresses.server, settings) as (address, directory):
        started = time.monotonic()
        send(binary, address, create_destination(address, name), name)
        took = time.monotonic() - started
        check_members(f"http://{addresses.sandbox}", name)
        # It logs a stream once that has ended.
        seen = streams(directory)
    print(f"{name}: {RECORDS} records in {seen} streams, {took:.1f} s")
    return seen


def main(binary: str) -> int:
    server.end_on_sigterm()
    program = shutil.which("nginx")
    if program is None:
        raise SystemExit("there is no nginx on this machine")
    path = Path(binary).resolve()
    addresses = server.free_addresses()
    with tempfile.TemporaryDirectory() as directory:
        keys_file = Path(directory, "connector.keys")
        keys_file.write_bytes(
            subprocess.run([path, "keygen"], check=True, capture_output=True).stdout
        )
        serve = [path, "serve", "--sandbox", "--keys-file", keys_file]
        with server.running(serve, addresses, path, cwd=directory):
            whole = journey(program, path, addresses, "as-advised", advised())
            cut = journey(program, path, addresses, "by-default", DEFAULTS)
    if whole != 1 or cut < 2:
        raise SystemExit(f"{whole} streams and {cut}: expected one, and several")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
