#!/usr/bin/env python3
"""Writes journey-members.csv: invented people passing a journey node, as untidy as real exports.

    python3 samples/generate.py > samples/journey-members.csv

Always the same output: there is no randomness in it. Everything is made up, and the addresses are
in domains reserved for examples (RFC 2606).
"""
import csv
import sys

MEMBERS = 9_600
FIRST = "Ada Ben Cleo Dev Ena Finn Gia Hugo Ines Jon Kim Lea Max Noa Olu Pia Quin Rui Siv Tom".split()
LAST = "Abel Berg Cruz Diaz Egan Fox Gray Holm Ito Jain Koch Lund Mora Nagy Okoro Park Ruiz Sato".split()
DOMAIN = ["example.com", "example.org", "Example.NET"]


def user_id(n):
    # Two systems wrote these: one in capitals.
    return f"U-{n:06}" if n % 3 == 0 else f"u-{n:06}"


def email(n):
    first, last = FIRST[n % len(FIRST)], LAST[n * 7 % len(LAST)]
    address = f"{first}.{last}{n}@{DOMAIN[n % 3]}"
    return f"  {address} " if n % 31 == 0 else address


def joining(n):
    if n % 450 == 0:
        return ["", "", "add"]  # nobody
    if n % 700 == 1:
        return ["   ", " ", "add"]  # blanks are not a name either
    if n % 1200 == 5:
        return [f"u-{n:06}\tmerged", "", "add"]  # a tab from a spreadsheet
    if n == 4321:
        return ["u-" + "0" * 1200, "", "add"]  # longer than any key
    if n % 20 == 0:
        return ["", email(n), "add"]  # known by e-mail alone
    return [user_id(n), email(n) if n % 4 else "", "" if n % 9 == 0 else "add"]


def rows():
    for n in range(1, MEMBERS + 1):
        yield joining(n)
        if n % 16 == 0 and n > 160:  # passes the node again, written differently
            yield [user_id(n - 149).swapcase(), email(n - 149).upper(), "add"]
        if n % 14 == 0 and n > 700:  # leaves
            yield [user_id(n - 658), "", "remove"]
        if n % 140 == 0 and n > 1400:  # and comes back
            yield [user_id(n - 658), "", "add"]


out = csv.writer(sys.stdout, lineterminator="\n")
out.writerow(["user_id", "email", "operation"])
out.writerows(rows())
