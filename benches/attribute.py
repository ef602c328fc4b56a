"""Attributes the CPU samples of a server to what it was doing, as a table.

    perf script -i FILE -F comm,ip,sym --no-inline | attribute.py [--functions PART]

A sample belongs to the part of its innermost frame that has one: what a part calls counts as its
own. Frames of the allocator, of collections and of channels have none, so that they count for
their caller. Only if no frame has a part, those of the session and of the runtime decide. Samples
in the kernel are the kernel's. `--functions` lists the innermost functions of one part.
"""

from __future__ import annotations

import re
import sys
from collections import Counter

Stack = list[tuple[int, str]]

# The first pattern that matches a frame decides.
PARTS = [
    ("settle", r"delivery::(ack|observed)|stream::(ledger|accounting)|PendingKey::settle"),
    ("settle", r"record_verdicts|SettledRecord"),
    ("batch", r"delivery::(batch|batch_delivery|bisect)::"),
    ("write", r"launchdarkly::integration|serde_json::ser"),
    ("call", r"reqwest|connector::launchdarkly|(hyper|hyper_util)::client|hyper::proto::h1"),
    ("map", r"domain::(mapping|transform|visibility)"),
    ("hand over", r"stream::submitter|LaneHandle|LaneCommand|delivery::(lanes|directory)"),
    ("batch", r"delivery::lane"),
    ("decode", r"prost::|IdentifierRecord|IdentifierBatch|SendIdentifiersRequest|tonic_prost"),
    ("answer", r"stream::(outbox|responses)|SendIdentifiersResponse|RecordResult|pb::.*Ack"),
    ("h2/tonic", r"\bh2::|tonic::|hyper::|hyper_util::|tower"),
]
# Around everything else, or in places that are everybody's.
AROUND = [
    ("session", r"server::(stream|edge)"),
    ("tokio", r"\b(tokio|tokio_util|mio)::"),
]
ORDER = [
    *("decode", "map", "hand over", "batch", "write", "call", "settle", "answer", "session"),
    *("h2/tonic", "tokio", "kernel", "other"),
]
# Addresses of the kernel are in the upper half.
KERNEL = 1 << 63


def samples(lines: list[str]) -> list[Stack]:
    """Stacks of (address, function), innermost first."""
    stacks: list[Stack] = []
    for line in lines:
        if not line.strip():
            continue
        if not line[0].isspace():
            stacks.append([])
            continue
        address, _, function = line.strip().partition(" ")
        stacks[-1].append((int(address, 16), function))
    return [stack for stack in stacks if stack]


def part_of(function: str, parts: list[tuple[str, str]]) -> str | None:
    return next((part for part, pattern in parts if re.search(pattern, function)), None)


def attribute(stack: Stack) -> str:
    if stack[0][0] >= KERNEL:
        return "kernel"
    for parts in (PARTS, AROUND):
        for _, function in stack:
            if part := part_of(function, parts):
                return part
    return "other"


def share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %"


def short(function: str) -> str:
    """The last two words of a path, without what it is generic over."""
    while (less := re.sub(r"<[^<>]*>", "", function)) != function:
        function = less
    return "::".join(function.split("::")[-2:])[:48]


def main() -> None:
    stacks = samples(sys.stdin.read().splitlines())
    if not stacks:
        sys.exit("no samples")
    functions: dict[str, Counter[str]] = {}
    for stack in stacks:
        functions.setdefault(attribute(stack), Counter())[stack[0][1]] += 1
    print(f"{len(stacks)} samples\n\n| part | share | mostly in |\n|---|--:|---|")
    for part in sorted(functions, key=ORDER.index):
        most = functions[part].most_common(3)
        names = ", ".join(f"`{short(name)}` {share(n, len(stacks))}" for name, n in most)
        print(f"| {part} | {share(functions[part].total(), len(stacks))} | {names} |")
    if sys.argv[1:2] == ["--functions"]:
        print()
        for name, n in functions.get(sys.argv[2], Counter()).most_common(30):
            print(f"{share(n, len(stacks)):>8}  {name}")


if __name__ == "__main__":
    main()
