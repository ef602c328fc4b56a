"""Connects to a server: by TLS or without, with a caller's certificate, key and headers.

The flags are those of ``launchdarkly-connector send``.
"""

from __future__ import annotations

import argparse
import collections
from pathlib import Path

import grpc

Header = tuple[str, str]


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server", required=True, help="http or https URL of the connector, or host and port"
    )
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="trust these certificates alone (PEM)"
    )
    parser.add_argument(
        "--server-name",
        metavar="NAME",
        help="name that the server's certificate must be for, where the URL has another",
    )
    parser.add_argument("--client-cert", type=Path, metavar="FILE", help="client certificate (PEM)")
    parser.add_argument("--client-key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="file of an API key, sent as `authorization: Bearer KEY`",
    )
    parser.add_argument(
        "--header",
        dest="headers",
        type=header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="one more header; may be repeated. Every user of the machine can read it, so "
        "`authorization` is refused: use --api-key-file",
    )


def connect(arguments: argparse.Namespace) -> grpc.Channel:
    """Reads the files, and makes a channel; the first call connects it."""
    scheme, _, address = arguments.server.rpartition("://")
    if scheme not in ("", "http", "https"):
        raise SystemExit(f"--server: the scheme must be http or https, not {scheme}")
    address = address.rstrip("/")
    if scheme == "https":
        channel = grpc.secure_channel(address, *tls(arguments))
    else:
        only_tls = ("ca_file", "server_name", "client_cert", "client_key")
        for flag in only_tls:
            if getattr(arguments, flag) is not None:
                raise SystemExit(
                    f"--{flag.replace('_', '-')} is for an https URL; correct --server"
                )
        channel = grpc.insecure_channel(address)
    headers = list(arguments.headers)
    if arguments.api_key_file is not None:
        headers.append(("authorization", f"Bearer {api_key(arguments.api_key_file)}"))
    return grpc.intercept_channel(channel, WithHeaders(headers)) if headers else channel


def tls(arguments: argparse.Namespace) -> tuple[grpc.ChannelCredentials, list[tuple[str, str]]]:
    if (arguments.client_cert is None) != (arguments.client_key is None):
        raise SystemExit("--client-cert and --client-key go together; give both or none")
    credentials = grpc.ssl_channel_credentials(
        root_certificates=read(arguments.ca_file),
        private_key=read(arguments.client_key),
        certificate_chain=read(arguments.client_cert),
    )
    name = arguments.server_name
    return credentials, [("grpc.ssl_target_name_override", name)] if name else []


def read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise SystemExit(f"{path} cannot be read: {error.strerror}") from None


def api_key(path: Path) -> str:
    """A key is one word; a line end is not part of it. What the file holds is not quoted."""
    words = (read(path) or b"").decode("ascii", "replace").split()
    if len(words) != 1 or not words[0].isprintable() or not words[0].isascii():
        raise SystemExit(f"{path} does not hold one API key and nothing else")
    return words[0]


def header(text: str) -> Header:
    name, colon, value = text.partition(":")
    name = name.strip().lower()
    if not colon or not name:
        raise argparse.ArgumentTypeError("write it like 'x-tenant: acme'")
    if name == "authorization":
        raise argparse.ArgumentTypeError(
            "every user of this machine can read arguments, and so a credential in them; put an "
            "API key into a file and name it with --api-key-file"
        )
    return name, value.strip()


class _Details(
    collections.namedtuple(
        "_Details",
        ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"),
    ),
    grpc.ClientCallDetails,
):
    """What gRPC asks an interceptor to return; it has no class for it."""


class WithHeaders(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Sends headers with every call."""

    def __init__(self, headers: list[Header]):
        self._headers = headers

    def intercept_unary_unary(self, continuation, client_call_details, request):
        return continuation(self._with_headers(client_call_details), request)

    def intercept_stream_stream(self, continuation, client_call_details, request_iterator):
        return continuation(self._with_headers(client_call_details), request_iterator)

    def _with_headers(self, details: grpc.ClientCallDetails) -> _Details:
        return _Details(
            method=details.method,
            timeout=details.timeout,
            metadata=[*(details.metadata or ()), *self._headers],
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
            compression=details.compression,
        )
