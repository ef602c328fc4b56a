"""Checks that the links of the documentation lead somewhere.

    links.py

Reads every Markdown file that git knows of or would take in. Fails on a relative link whose file
does not exist, on an anchor that no heading makes, and on a path in back-ticks, such as
`src/lib.rs`, that is not in the repository. Addresses of other sites are not called.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(```|~~~).*?^\1$", re.M | re.S)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(\s*<?([^()\s>]+)>?[^()]*\)|^\[[^\]]+\]:\s+(\S+)", re.M)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.M)
EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:")
FOLDERS = r"\.ci|benches|clients|docs|examples|migrations|proto|samples|src|tests"
PATH = re.compile(rf"`((?:{FOLDERS})/[^`]*)`")


def markdown_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # A file that is deleted and not yet committed is listed too.
    return [file for name in listed.splitlines() if (file := ROOT / name).exists()]


def prose(file: Path) -> str:
    """The text without fenced blocks; lines keep their numbers."""
    return FENCE.sub(lambda block: "\n" * block[0].count("\n"), file.read_text())


@cache
def anchors(file: Path) -> set[str]:
    """The anchors of a file's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in HEADING.findall(prose(file)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def wrong_with(link: str, file: Path) -> str | None:
    path, _, anchor = unquote(link).partition("#")
    target = (file.parent / path).resolve() if path else file
    if not target.is_relative_to(ROOT):
        return "leads out of the repository"
    if not target.exists():
        return "no such file"
    if anchor and (target.suffix != ".md" or anchor not in anchors(target)):
        return "no such heading"
    return None


def problems(file: Path) -> list[str]:
    """What is wrong with a file's links and paths, each with its line."""
    text = prose(file)
    found = []
    # A link in back-ticks is an example.
    shown = CODE.sub(lambda code: " " * len(code[0]), text)
    links = [(match.start(), match[1] or match[2]) for match in LINK.finditer(shown)]
    for at, link in links:
        if not EXTERNAL.match(link) and (wrong := wrong_with(link, file)):
            found.append((at, f"{link}: {wrong}"))
    for match in PATH.finditer(text):
        if not (ROOT / match[1]).exists():
            found.append((match.start(), f"`{match[1]}`: no such file"))
    name = file.relative_to(ROOT)
    return [f"{name}:{text.count(chr(10), 0, at) + 1}: {wrong}" for at, wrong in sorted(found)]


def main() -> int:
    files = markdown_files()
    wrong = [line for file in files for line in problems(file)]
    print("\n".join(wrong) or f"{len(files)} files: every link leads somewhere")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    if len(sys.argv) != 1:
        sys.exit(__doc__)
    sys.exit(main())
