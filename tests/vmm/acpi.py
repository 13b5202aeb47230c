#!/usr/bin/env python3
"""iasl takes the ACPI tables apart without an error, and puts the DSDT and SSDT together again.

	acpi.py PROGRAM IASL    PROGRAM DIRECTORY writes the tables (tests/vmm/boot.c)
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from tap import Tap  # noqa: E402


def run(*argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=60)
    return done.returncode, done.stdout


def main():
    program, iasl = sys.argv[1:]
    tap = Tap()
    with tempfile.TemporaryDirectory() as folder:
        run(program, folder)
        for name in ("FACP", "APIC", "MCFG"):
            status, text = run(iasl, "-d", os.path.join(folder, name + ".dat"))
            source = os.path.join(folder, name + ".dsl")
            body = open(source).read() if os.path.exists(source) else ""
            good = status == 0 and body and "**** " not in body and "Invalid" not in body and "Unknown" not in body
            if not tap.ok(good, "iasl takes %s apart" % name):
                tap.diag(text + body)
        for name, other in (("DSDT", "SSDT"), ("SSDT", "DSDT")):
            dat = os.path.join(folder, name + ".dat")
            status, text = run(iasl, "-e", os.path.join(folder, other + ".dat"), "-d", dat)
            if not tap.ok(status == 0 and os.path.exists(dat[:-4] + ".dsl"), "iasl takes %s apart" % name):
                tap.diag(text)
                continue
            status, text = run(iasl, "-p", os.path.join(folder, name + "-again"), dat[:-4] + ".dsl")
            if not tap.ok(status == 0 and " 0 Errors" in text, "iasl compiles what it made of %s" % name):
                tap.diag(text)
    sys.exit(tap.end())


main()
