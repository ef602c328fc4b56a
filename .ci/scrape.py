"""Scrapes a connector in both formats, and has each read by a parser that was written by others.

    scrape.py BINARY

The parsers are those of Prometheus' own client for Python; that of OpenMetrics is strict.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as open_metrics

import server

FORMATS = [
    ("application/openmetrics-text; version=1.0.0", open_metrics.text_string_to_metric_families),
    ("text/plain; version=0.0.4", prometheus.text_string_to_metric_families),
]
# Neither needs a destination to be there.
EXPECTED = {"connector_records_received": "counter", "connector_streams": "gauge"}


def scrape(address: str, accept: str) -> str:
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content_type = answer.headers["Content-Type"]
        if not content_type.startswith(accept):
            raise SystemExit(f"asked for {accept}, and got {content_type}")
        return answer.read().decode()


def check(address: str) -> None:
    for accept, parse in FORMATS:
        families = {family.name: family.type for family in parse(scrape(address, accept))}
        if not families.items() >= EXPECTED.items():
            raise SystemExit(f"{accept}: {families}")
        print(f"{accept}: {len(families)} families")


def main(binary: str) -> int:
    server.end_on_sigterm()
    program = Path(binary).resolve()
    addresses = server.free_addresses()
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as directory:
        keys = Path(directory, "connector.keys")
        keys.write_bytes(
            subprocess.run([program, "keygen"], check=True, capture_output=True).stdout
        )
        serve = [program, "serve", "--sandbox", "--keys-file", keys, "--metrics-listen", metrics]
        with server.running(serve, addresses, program, cwd=directory):
            check(metrics)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
