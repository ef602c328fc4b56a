"""Types the walk-throughs of docs/getting-started.md, and compares what they show.

    walkthrough.py BINARY [--write]

Every `sh` block of the page is run by bash and every `python` block by Python, in one new
directory, in order. A `json` or `text` block right after one is its output. The output is compared,
except for what differs from run to run: ids, times, tags and ports. A block that runs `serve` is
left running for the blocks after it. `--write` puts the true outputs into the page instead.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import server

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/getting-started.md"
# The addresses of the server and of its sandbox, as the page has them.
SHOWN = server.Addresses("127.0.0.1:50051", "127.0.0.1:8090")
COMMAND_SECONDS = 60
# What shells answer.
NO_SUCH_COMMAND = 127

BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
VOLATILE = [
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r'"etag": "[^"]+"'), '"etag": "<etag>"'),
]


@dataclass(frozen=True)
class Block:
    """A fenced block, and where its text stands in the page."""

    language: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Output:
    """What a block printed, and the block that shows it."""

    shown: Block
    true: str


class Reader:
    """Types blocks in a directory of its own."""

    def __init__(self, binary: Path, directory: Path, stack: contextlib.ExitStack):
        self.binary = binary
        self.directory = directory
        self.stack = stack
        self.addresses = server.free_addresses()

    def type_in(self, block: Block) -> str:
        """Runs a block; returns what it printed, as the page shows it."""
        if re.match(r"launchdarkly-connector serve\b", block.text):
            self._serve(block.text)
            return ""
        program = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
        done = subprocess.run(
            [*program[block.language], self._here(block.text)],
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        print(f"  exit code {done.returncode}: {block.text.splitlines()[0]}")
        # Some commands are shown to fail; not for want of a program, and no program by a traceback.
        if done.returncode == NO_SUCH_COMMAND or (done.returncode and block.language == "python"):
            raise SystemExit(done.stdout)
        return self._shown(done.stdout)

    def _serve(self, text: str) -> None:
        command = shlex.split(text)
        command[0] = str(self.binary)
        serving = server.running(command, self.addresses, self.binary, cwd=self.directory)
        self.stack.enter_context(serving)
        print(f"  serving: {text.strip()}")

    def _environment(self) -> dict[str, str]:
        tools = [str(self.binary.parent), str(Path(sys.executable).parent)]
        path = os.pathsep.join([*tools, os.environ["PATH"]])
        modules = str(ROOT / "clients/python")
        return {**server.clean_environment(), "PATH": path, "PYTHONPATH": modules}

    def _here(self, text: str) -> str:
        return text.replace(SHOWN.server, self.addresses.server).replace(
            SHOWN.sandbox, self.addresses.sandbox
        )

    def _shown(self, text: str) -> str:
        return text.replace(self.addresses.server, SHOWN.server).replace(
            self.addresses.sandbox, SHOWN.sandbox
        )


def blocks(page: str) -> list[Block]:
    found = BLOCK.finditer(page)
    return [Block(m["language"], m["text"], m.start("text"), m.end("text")) for m in found]


def follow(page: str, type_in: Callable[[Block], str]) -> list[Output]:
    """Runs every block of the page; returns each output with the block that shows it."""
    outputs = []
    pending = None
    for block in blocks(page):
        if block.language in ("sh", "python"):
            pending = type_in(block)
        elif pending is not None:
            outputs.append(Output(block, pending))
            pending = None
    return outputs


def steady(text: str) -> str:
    for pattern, name in VOLATILE:
        text = pattern.sub(name, text)
    # Some tools end lines with spaces, and editors take them away.
    return "\n".join(line.rstrip() for line in text.splitlines())


def differences(output: Output) -> list[str]:
    shown, true = (steady(text).splitlines() for text in (output.shown.text, output.true))
    return list(difflib.unified_diff(shown, true, PAGE.name, "really", lineterm=""))


def written(page: str, outputs: list[Output]) -> str:
    """The page with true outputs; those that differ in nothing but volatile parts stay."""
    for output in reversed(outputs):
        if differences(output):
            page = page[: output.shown.start] + output.true + page[output.shown.end :]
    return page


def main(binary: str, *options: str) -> int:
    server.end_on_sigterm()
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        reader = Reader(Path(binary).resolve(), Path(directory), stack)
        outputs = follow(page, reader.type_in)
    if "--write" in options:
        PAGE.write_text(written(page, outputs))
        return 0
    wrong = [line for output in outputs for line in differences(output)]
    print("\n".join(wrong))
    print(f"{len(outputs)} outputs compared, {'they differ' if wrong else 'all as shown'}")
    return 1 if wrong or not outputs else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
