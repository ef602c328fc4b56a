"""Holds tables of the documentation to the code.

    tables.py BINARY

Settings: flags, variables and defaults as `serve --help` tells them. Reasons: as the code has them,
those of statuses with their gRPC codes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import server

ROOT = Path(__file__).parent.parent
REASONS = ROOT / "src/server/status/reason.rs"
ADVICE = ROOT / "src/launchdarkly/credentials/advice.rs"


def table(page: str, first_column: str) -> list[list[str]]:
    """The rows of the table whose first column has this title, without Markdown's back-ticks."""
    text = (ROOT / page).read_text()
    lines = text[text.index(f"| {first_column} |") :].split("\n\n", 1)[0].splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[2:]]
    return [[cell.strip().replace("`", "") for cell in row] for row in cells]


def settings(binary: str) -> list[list[str]]:
    """Flag, variable and default of every setting of `serve`."""
    shown = subprocess.run(
        [binary, "serve", "--help"],
        env=server.clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    entries = re.split(r"^\s+(?:-\w, )?(?=--[a-z])", shown, flags=re.M)[1:]
    rows = []
    for entry in (" ".join(wrapped.split()) for wrapped in entries):
        flag = re.match(r"--[a-z-]+", entry)[0]
        # Without its value where that may be a secret.
        variable = re.search(r"\[env: (\w+)[=\]]", entry)
        default = re.search(r"\[default: ([^\]]+)\]", entry)
        if flag != "--help":
            rows.append([flag, variable[1] if variable else "", default[1] if default else ""])
    return rows


def reasons() -> dict[str, set[str]]:
    """Every reason of a status, with the codes it comes with."""
    rows = re.findall(r'^    \w+ = "([A-Z_]+)" \[([\w, ]+)\],$', REASONS.read_text(), re.M)
    return {reason: {screaming(code) for code in codes.split(", ")} for reason, codes in rows}


def screaming(code: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", code).upper()


def advice() -> set[str]:
    """Every reason of a credential check."""
    return set(re.findall(r"^    ([A-Z_]+) =$", ADVICE.read_text(), re.M))


def compare(what: str, shown, true) -> bool:
    if shown == true:
        print(f"{what}: {len(true)} rows as in the code")
        return True
    print(f"{what}: the documentation and the code differ")
    print(f"  documented: {shown}\n  code:       {true}")
    return False


def main(binary: str) -> int:
    documented = [row[:3] for row in table("docs/settings.md", "flag")]
    reason_rows = table("docs/contract.md", "reason")
    coded = {row[0]: set(re.split(r",? or ", row[1])) for row in reason_rows}
    check_rows = table("docs/contract.md", "check's reason")
    checks = {name for row in check_rows for name in row[0].split(", ")}
    right = [
        compare("settings", documented, settings(binary)),
        compare("reasons", coded, reasons()),
        compare("reasons of checks", checks, advice()),
    ]
    return 0 if all(right) else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
