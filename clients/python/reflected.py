"""Calls a gRPC service in plain dictionaries, knowing nothing of it but its name.

The server describes itself by reflection, so there is no generated code: requests and responses
are the JSON form of their messages, errors come with their decoded ``google.rpc`` details.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

Json = dict[str, Any]


class Failure(Exception):
    """A call that failed: its code, its message, and its details by the name of their type."""

    def __init__(self, code: str, message: str, details: dict[str, Json]):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.code}: {self.message} ({self.reason})"

    @property
    def reason(self) -> str:
        """The stable thing to branch on."""
        return self.details.get("ErrorInfo", {}).get("reason", "")

    @property
    def fields(self) -> list[str]:
        """The paths of the fields that are wrong."""
        violations = self.details.get("BadRequest", {}).get("fieldViolations", [])
        return [violation["field"] for violation in violations]


class Service:
    """One service of a server."""

    def __init__(self, channel: grpc.Channel, name: str):
        self._channel = channel
        self._pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self._service = self._pool.FindServiceByName(name)

    def call(self, method: str, request: Json | None = None, timeout: float = 30) -> Json:
        """Makes a unary call."""
        make, (request_type, _) = self._method(self._channel.unary_unary, method)
        try:
            return self._to_json(make(self._message(request_type, request or {}), timeout=timeout))
        except grpc.RpcError as error:
            raise self._failure(error) from None

    def stream(
        self, method: str, requests: Iterable[Json], timeout: float | None = None
    ) -> Iterator[Json]:
        """Makes a call that streams both ways, and half-closes when there is no request left."""
        make, (request_type, _) = self._method(self._channel.stream_stream, method)
        messages = (self._message(request_type, request) for request in requests)
        try:
            for response in make(messages, timeout=timeout):
                yield self._to_json(response)
        except grpc.RpcError as error:
            raise self._failure(error) from None

    def failure(self, status: Json) -> Failure:
        """The same for a ``google.rpc.Status`` inside a response, such as a record's error."""
        code = next(code for code in grpc.StatusCode if code.value[0] == status["code"])
        return Failure(code.name, status["message"], _by_type(status.get("details", [])))

    def _method(self, kind: Callable, name: str):
        method = self._service.methods_by_name[name]
        types = [
            message_factory.GetMessageClass(descriptor)
            for descriptor in (method.input_type, method.output_type)
        ]
        make = kind(
            f"/{self._service.full_name}/{name}",
            request_serializer=types[0].SerializeToString,
            response_deserializer=types[1].FromString,
        )
        return make, types

    def _message(self, message_type: type, request: Json):
        return json_format.ParseDict(request, message_type(), descriptor_pool=self._pool)

    def _to_json(self, message) -> Json:
        return json_format.MessageToDict(message, descriptor_pool=self._pool)

    def _failure(self, error: grpc.RpcError) -> Failure:
        trailers = dict(error.trailing_metadata() or ())
        status_type = self._pool.FindMessageTypeByName("google.rpc.Status")
        status = message_factory.GetMessageClass(status_type)()
        status.ParseFromString(trailers.get("grpc-status-details-bin", b""))
        details = self._to_json(status).get("details", [])
        return Failure(error.code().name, error.details() or "", _by_type(details))


def _by_type(details: list[Json]) -> dict[str, Json]:
    return {detail["@type"].rpartition(".")[2]: detail for detail in details}
