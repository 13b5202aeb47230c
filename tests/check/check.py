#!/usr/bin/env python3
"""scripts/check counts as it promises: what a test's output, status and time are taken for."""
import importlib.machinery
import importlib.util
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import ROOT  # noqa: E402
from tap import Tap  # noqa: E402

GOOD = "ok 1 - a\nok 2 - b\n1..2\n"
# name, output, exit status, timed out; then how many passed, failed and were skipped
CASES = [
    ("two verdicts", GOOD, 0, False, (2, 0, 0)),
    ("the plan first", "1..1\nok 1 - a\n", 0, False, (1, 0, 0)),
    ("comments and noise", "# x\nnoise\nok 1 - a\nokay\n1..1\n", 0, False, (1, 0, 0)),
    ("a failed case", "ok 1 - a\nnot ok 2 - b\n1..2\n", 1, False, (1, 1, 0)),
    ("a skipped case", "ok 1 - a\nok 2 - b # SKIP no AVX\n1..2\n", 0, False, (1, 0, 1)),
    ("all skipped", "ok 1 - a # skip no\n1..1\n", 0, False, (0, 0, 1)),
    ("a failed case that is marked skipped", "not ok 1 - a # SKIP no\n1..1\n", 1, False, (0, 1, 0)),
    ("a crash after good verdicts", GOOD, -11, False, (2, 1, 0)),
    ("a crash at once", "", -6, False, (0, 1, 0)),
    ("a status that no verdict explains", GOOD, 3, False, (2, 1, 0)),
    ("a failure that the status hides", "not ok 1 - a\n1..1\n", 0, False, (0, 2, 0)),
    ("a time-out", "ok 1 - a\n", -9, True, (1, 1, 0)),
    ("a plan of more", "ok 1 - a\n1..2\n", 0, False, (1, 1, 0)),
    ("a plan of fewer", "ok 1 - a\nok 2 - b\n1..1\n", 0, False, (2, 1, 0)),
    ("no plan", "ok 1 - a\n", 0, False, (1, 1, 0)),
    ("two plans", "1..1\nok 1 - a\n1..1\n", 0, False, (1, 1, 0)),
    ("a number that is left out", "ok 1 - a\nok 3 - c\n1..2\n", 0, False, (2, 1, 0)),
    ("nothing at all", "", 0, False, (0, 1, 0)),
    ("an empty plan", "1..0\n", 0, False, (0, 1, 0)),
    ("a bail-out", "ok 1 - a\nBail out! no memory\n1..1\n", 1, False, (1, 2, 0)),
]


def main():
    path = os.path.join(ROOT, "scripts", "check")
    loader = importlib.machinery.SourceFileLoader("check", path)
    sys.dont_write_bytecode = True
    check = importlib.util.module_from_spec(importlib.util.spec_from_loader("check", loader))
    loader.exec_module(check)
    tap = Tap()
    for name, output, status, timed_out, want in CASES:
        passed, failed, skipped = check.judge(output, status, timed_out, True)
        got = (passed, len(failed), len(skipped))
        if not tap.ok(got == want, "%s: %d passed, %d failed, %d skipped" % (name, *want)):
            tap.diag("it is %d, %d and %d: %s" % (*got, "; ".join(failed)))
    sys.exit(tap.end())


main()
