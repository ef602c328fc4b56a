"""Walks the whole journey as an outside client would, and checks every answer on the way.

Needs a server that runs with a sandbox LaunchDarkly:

    launchdarkly-connector serve --sandbox --keys-file connector.keys
    python journey.py --server http://127.0.0.1:50051 --sandbox http://127.0.0.1:8090
"""

from __future__ import annotations

import argparse
import base64
import json
import queue
import re
import urllib.request
import uuid

import connection
from reflected import Failure, Json, Service

SERVICE = "cdp.destinations.v1.DestinationConnector"
DOMAIN = "destinations.cdp"

# Of the sandbox's fixed accounts.
WRITER_TOKEN = "api-00000000-0000-4000-8000-000000000001"
SERVICE_TOKEN = "api-00000000-0000-4000-8000-000000000004"
READER_TOKEN = "api-00000000-0000-4000-8000-000000000002"
SDK_KEY = "sdk-5a0000000000000000000001"
CLIENT_SIDE_ID = "5a0000000000000000000001"
FLAG = "vip-banner"
SEGMENT = {"segmentId": "vip", "segmentName": "VIP customers"}

RECORDS = 1000
BATCH = 250
# Every so many records one has a blank identifier, and one has none at all.
BLANK_EVERY = 100
ABSENT_EVERY = 125


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    connection.add_flags(parser)
    parser.add_argument("--sandbox", required=True, help="URL of its sandbox LaunchDarkly")
    arguments = parser.parse_args()
    parent = f"organizations/python-{uuid.uuid4().hex[:8]}"
    with connection.connect(arguments) as channel:
        connector = Service(channel, SERVICE)
        describe(connector)
        validate(connector)
        destination = create(connector, parent)
        find(connector, parent, destination)
        stream(connector, destination, arguments.sandbox)
        refused_stream(connector, destination)
        rotate(connector, destination, arguments.sandbox)
        delete(connector, destination)


def describe(connector: Service) -> None:
    """The forms can be drawn from this answer alone."""
    [action] = connector.call("DescribeActions")["actions"]
    check(action["id"], "send-identifiers")
    check(action["displayName"], "Send Identifiers to LaunchDarkly in realtime")
    check(action["operations"], ["OPERATION_ADD", "OPERATION_REMOVE"])
    paths = {
        kind: [field["path"] for field in action[kind]]
        for kind in ("destinationFields", "mappingFields", "activationFields")
    }
    check(paths["mappingFields"], ["context_key"])
    check(sorted(paths["activationFields"]), ["activation.segment_id", "activation.segment_name"])
    check(
        sorted(paths["destinationFields"]),
        [
            "launch_darkly.access_token",
            "launch_darkly.client_side_id",
            "launch_darkly.instance",
        ],
    )
    fields = [field for kind in paths for field in action[kind]]
    for field in fields:
        assert re.fullmatch(field.get("pattern") or ".*", field["placeholder"]), field
    say(f"describes {action['id']} with {len(fields)} fields")


def validate(connector: Service) -> None:
    """Bad credentials are an answer: one entry per check, with a remedy."""

    def outcomes(token: str, client_side_id: str) -> Json:
        config = {"accessToken": token, "clientSideId": client_side_id}
        return connector.call("ValidateCredentials", {"launchDarkly": config})

    wrong = outcomes(SDK_KEY, "vip-dashed")
    assert not wrong.get("valid"), wrong
    token, environment, writing = wrong["checks"]
    check(token["outcome"], "OUTCOME_FAILED")
    check(token["field"], "launch_darkly.access_token")
    check(environment["outcome"], "OUTCOME_FAILED")
    check(environment["field"], "launch_darkly.client_side_id")
    check(writing["outcome"], "OUTCOME_SKIPPED")
    failure = connector.failure(token["error"])
    check(failure.reason, "TOKEN_IS_SDK_KEY")
    check(failure.details["ErrorInfo"]["domain"], DOMAIN)
    check(failure.fields, ["launch_darkly.access_token"])

    reader = outcomes(READER_TOKEN, CLIENT_SIDE_ID)
    assert not reader.get("valid"), reader
    check(
        [each["outcome"] for each in reader["checks"]], [*["OUTCOME_PASSED"] * 2, "OUTCOME_FAILED"]
    )
    check(connector.failure(reader["checks"][2]["error"]).reason, "ROLE_CANNOT_WRITE")

    right = outcomes(WRITER_TOKEN, CLIENT_SIDE_ID)
    check(right["valid"], True)
    check([each["outcome"] for each in right["checks"]], ["OUTCOME_PASSED"] * 3)
    check(right["facts"]["tokenRole"], "writer")
    check(right["facts"]["environmentKey"], "production")
    say("validates credentials: wrong, read-only, right")


def create(connector: Service, parent: str) -> Json:
    """A retry with the same request_id makes nothing new, and a bad request names every field."""
    bad = {
        "parent": parent,
        "destinationId": "Not Legal",
        "destination": {"displayName": "", "action": "fly", "launchDarkly": {}},
    }
    failure = failing(lambda: connector.call("CreateDestination", bad), "INVALID_ARGUMENT")
    check(failure.reason, "INVALID_FIELD")
    for field in (
        "destination_id",
        "destination.display_name",
        "destination.action",
        "destination.launch_darkly.access_token",
        "destination.launch_darkly.client_side_id",
        "destination.field_mappings",
    ):
        assert field in failure.fields, (field, failure.fields)

    request = {
        "parent": parent,
        "requestId": str(uuid.uuid4()),
        "destination": {
            "displayName": "LaunchDarkly production",
            "action": "send-identifiers",
            "launchDarkly": {"accessToken": WRITER_TOKEN, "clientSideId": CLIENT_SIDE_ID},
            "fieldMappings": [
                {
                    "field": "context_key",
                    "sources": ["user_id", "email"],
                    "transforms": ["TRANSFORM_TRIM", "TRANSFORM_LOWERCASE"],
                }
            ],
        },
    }
    created = connector.call("CreateDestination", request)
    check(connector.call("CreateDestination", request), created)
    check(created["state"], "STATE_ACTIVE")
    config = created["launchDarkly"]
    assert "accessToken" not in config, "the token came back"
    assert config["obfuscatedAccessToken"].endswith(WRITER_TOKEN[-4:]), config
    assert WRITER_TOKEN not in json.dumps(created), "the token came back"

    request["destination"]["displayName"] = "Another"
    failure = failing(lambda: connector.call("CreateDestination", request), "INVALID_ARGUMENT")
    check(failure.reason, "REQUEST_ID_REUSED")
    say(f"creates {created['name']} once, though asked twice")
    return created


def find(connector: Service, parent: str, destination: Json) -> None:
    """By a part of its name in any case; a page at a time."""
    for number in range(3):
        other = json.loads(json.dumps(destination))
        other["displayName"] = f"Other {number}"
        other["launchDarkly"]["accessToken"] = WRITER_TOKEN
        connector.call("CreateDestination", {"parent": parent, "destination": other})

    def names(**query) -> list[str]:
        found = connector.call("ListDestinations", {"parent": parent, **query})
        return [each["displayName"] for each in found.get("destinations", [])]

    check(names(filter='display_name:"darkly PROD"'), [destination["displayName"]])
    check(names(filter='display_name:"nothing like it"'), [])

    seen, token = [], ""
    while True:
        query = {"parent": parent, "pageSize": 3, "pageToken": token}
        page = connector.call("ListDestinations", query)
        seen += [each["displayName"] for each in page["destinations"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
    check(seen, ["Other 2", "Other 1", "Other 0", destination["displayName"]])
    check(connector.call("GetDestination", {"name": destination["name"]}), destination)
    say("lists with a filter and in pages")


def stream(connector: Service, destination: Json, sandbox: str) -> None:
    """Every record gets exactly one result; the flag flips for those that were delivered."""
    member = key(1)
    check(flag(sandbox, member), False)
    results = send(connector, destination, [record(number) for number in range(1, RECORDS + 1)])

    failed = {}
    for number in range(1, RECORDS + 1):
        if number % ABSENT_EVERY == 0:
            failed[number] = "IDENTIFIER_MISSING"
        elif number % BLANK_EVERY == 0:
            failed[number] = "IDENTIFIER_INVALID"
    check({number: error.reason for number, error in results.items() if error}, failed)
    for number, error in results.items():
        if error:
            check(error.code, "INVALID_ARGUMENT")
            check(error.details["ErrorInfo"]["domain"], DOMAIN)
            assert key(number) not in f"{error} {error.details}", "an identifier came back"
    check(flag(sandbox, member), True)
    check(flag(sandbox, "user-100"), False)
    sample = results[BLANK_EVERY]
    say(f"streams {RECORDS} records: {RECORDS - len(failed)} delivered, {len(failed)} failed")
    say(f"  record {BLANK_EVERY}: {sample.reason}: {sample.message}")

    removal = {"identifiers": {"email": f"  {member.upper()} "}, "operation": "OPERATION_REMOVE"}
    check(send(connector, destination, [removal]), {1: None})
    check(flag(sandbox, member), False)
    say(f"the flag {FLAG} was off, came on and went off again for a member")


def refused_stream(connector: Service, destination: Json) -> None:
    """A stream that breaks a rule ends with the rule, after the results that are known."""
    opening = {"open": {"destination": destination["name"], "activation": {"segmentId": "a b"}}}
    failure = failing(
        lambda: list(connector.stream("SendIdentifiers", [opening])), "INVALID_ARGUMENT"
    )
    check(sorted(failure.fields), ["open.activation.segment_id", "open.activation.segment_name"])
    gap = [
        opening_of(destination),
        batch([record(1)], first=7),
        batch([record(2)], first=9),
    ]
    failure = failing(lambda: list(connector.stream("SendIdentifiers", gap)), "OUT_OF_RANGE")
    check(failure.reason, "SEQUENCE_MISMATCH")
    check(failure.details["ErrorInfo"]["metadata"]["expected_sequence"], "8")
    say("refuses a bad segment id, and a gap in the sequence")


def rotate(connector: Service, destination: Json, sandbox: str) -> None:
    """A new token is used from the next call on; a stale etag changes nothing."""
    request = {
        "destination": {
            "name": destination["name"],
            "etag": destination["etag"],
            "launchDarkly": {"accessToken": SERVICE_TOKEN},
        },
        "updateMask": "launchDarkly.accessToken",
    }
    updated = connector.call("UpdateDestination", request)
    config = updated["launchDarkly"]
    assert config["obfuscatedAccessToken"].endswith(SERVICE_TOKEN[-4:]), config
    check(config["clientSideId"], CLIENT_SIDE_ID)
    failure = failing(lambda: connector.call("UpdateDestination", request), "ABORTED")
    check(failure.reason, "ETAG_MISMATCH")

    check(send(connector, destination, [record(2)]), {1: None})
    check(flag(sandbox, key(2)), True)
    say("rotates the access token; the next call uses it")


def delete(connector: Service, destination: Json) -> None:
    """Gone is gone, and streams say so."""
    request = {"name": destination["name"]}
    check(connector.call("DeleteDestination", request), {})
    failure = failing(lambda: connector.call("GetDestination", request), "NOT_FOUND")
    check(failure.reason, "DESTINATION_NOT_FOUND")
    check(connector.call("DeleteDestination", {**request, "allowMissing": True}), {})
    opening = [opening_of(destination)]
    failure = failing(lambda: list(connector.stream("SendIdentifiers", opening)), "NOT_FOUND")
    check(failure.details["ResourceInfo"]["resourceName"], destination["name"])
    say("deletes the destination; a stream to it is refused")


def send(connector: Service, destination: Json, records: list[Json]) -> dict[int, Failure | None]:
    """Sends records on a stream of their own; returns the result of each by its sequence.

    Waits for `opened` before it sends, and for the last result before it half-closes.
    """
    outgoing: queue.SimpleQueue[Json | None] = queue.SimpleQueue()
    outgoing.put(opening_of(destination))
    responses = connector.stream("SendIdentifiers", iter(outgoing.get, None), timeout=60)

    opened = next(responses)["opened"]
    size = min(BATCH, opened["maxBatchRecords"])
    assert opened["maxInFlightRecords"] >= len(records), opened
    for start in range(0, len(records), size):
        outgoing.put(batch(records[start : start + size]))

    results: dict[int, Failure | None] = {}
    committed = 0
    for response in responses:
        ack = response.get("ack")
        if not ack:
            assert "notice" in response, response
            continue
        for run in ack.get("results", []):
            error = connector.failure(run["error"]) if "error" in run else None
            for sequence in range(int(run["firstSequence"]), int(run["lastSequence"]) + 1):
                assert sequence not in results, f"a second result for record {sequence}"
                results[sequence] = error
        newly = int(ack.get("committedSequence", 0))
        assert newly >= committed, "a commit was taken back"
        committed = newly
        assert all(number in results for number in range(1, committed + 1)), "a gap was committed"
        if committed == len(records):
            outgoing.put(None)
    check(sorted(results), list(range(1, len(records) + 1)))
    return results


def opening_of(destination: Json) -> Json:
    return {"open": {"destination": destination["name"], "activation": SEGMENT}}


def batch(records: list[Json], first: int | None = None) -> Json:
    numbered = {} if first is None else {"firstSequence": first}
    return {"batch": {"records": records, **numbered}}


def key(number: int) -> str:
    return f"user-{number}"


def record(number: int) -> Json:
    """The mapping trims and lowers; so these names differ from the keys."""
    if number % ABSENT_EVERY == 0:
        return {"identifiers": {"phone": "1"}}
    if number % BLANK_EVERY == 0:
        return {"identifiers": {"user_id": "  "}}
    return {"identifiers": {"user_id": f" User-{number}"}}


def flag(sandbox: str, member: str) -> bool:
    """What a client-side SDK of LaunchDarkly would see."""
    context = json.dumps({"kind": "user", "key": member}).encode()
    encoded = base64.urlsafe_b64encode(context).decode()
    url = f"{sandbox}/sdk/evalx/{CLIENT_SIDE_ID}/contexts/{encoded}"
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)[FLAG]["value"]


def failing(call, code: str) -> Failure:
    try:
        answer = call()
    except Failure as failure:
        check(failure.code, code)
        return failure
    raise AssertionError(f"expected {code}, got {answer}")


def check(found, expected) -> None:
    assert found == expected, f"expected {expected!r}, found {found!r}"


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
