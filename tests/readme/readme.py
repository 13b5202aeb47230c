#!/usr/bin/env python3
"""Every command that README.md shows works. Blocks marked "sh run" are run as they stand, from the top of the tree.

A guest that asks is told to power off. Other "sh" blocks may hold only what is covered elsewhere.
"""
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, ROOT  # noqa: E402
from tap import Tap  # noqa: E402

# What runs this; what tests/debian does; what tests/modules does on a machine of its own.
COVERED = re.compile(r"make modules_install .*|modprobe .*|qemu-system-x86_64 -accel kvm -m 256M .*|make check|scripts/mkrootfs build/guest|build/trine .* trine\.root=/dev/vda\" .*build/guest/debian\.img.*")
PATIENCE = 300


def blocks(path):
    with open(path, encoding="utf-8") as f:
        return re.findall(r"^```(sh[^\n]*)\n(.*?)^```$", f.read(), re.M | re.S)


def run(script):
    process = subprocess.Popen(["bash", "-e", "-o", "pipefail", "-c", script], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output, _ = process.communicate(b"poweroff -f\n", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return None, output
    return process.returncode, output


def main():
    tap = Tap()
    for kind, script in blocks(os.path.join(ROOT, "README.md")):
        name = " ".join(script.split())
        if kind != "sh run":
            for line in re.sub(r" *\\\n *", " ", script.strip()).splitlines():
                tap.ok(COVERED.fullmatch(line), "covered by other means: %s" % line)
            continue
        # README speaks of build/; the build under test may be another one.
        if os.path.join(ROOT, "build") != BUILD:
            script = re.sub(r"(?<![\w-])build/", BUILD + "/", script.replace("$PWD/build/", BUILD + "/"))
            script = re.sub(r"\bmake\b", "make BUILD=%s" % BUILD, script)
        status, output = run(script)
        if not tap.ok(status == 0, "README: %s" % name):
            tap.diag("status %s" % status)
            tap.diag("\n".join(output.decode("utf-8", "replace").splitlines()[-40:]))
    sys.exit(tap.end())


main()
