#!/usr/bin/env python3
"""The manual page and the program agree on which options there are; -version and -help answer and end with 0."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, ROOT  # noqa: E402
from tap import Tap  # noqa: E402


def run(*options):
    return subprocess.run([os.path.join(BUILD, "trine"), *options], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=30)


def main():
    tap = Tap()
    with open(os.path.join(ROOT, "docs", "man", "trine.1"), encoding="utf-8") as f:
        page = f.read()
    documented = set()
    for line in re.findall(r"^\.It (Fl .*)$", page, re.M):
        documented.update(re.findall(r"\bFl ([a-zA-Z][\w-]*)", line))
    done = run("-help")
    tap.ok(done.returncode == 0 and not done.stderr, "-help ends with 0")
    offered = set(re.findall(r"^\s*-([a-zA-Z][\w-]*)", done.stdout, re.M))
    tap.ok(len(offered) > 10, "-help lists options")
    for name in sorted(offered | documented):
        tap.ok(name in offered and name in documented, "-%s is in -help and in trine.1" % name)
    done = run("-version")
    with open(os.path.join(ROOT, "meson.build"), encoding="utf-8") as f:
        version = re.search(r"version: '([^']+)'", f.read()).group(1)
    tap.ok(done.returncode == 0 and version in done.stdout, "-version says %s" % version)
    for what in ("-device", "-cpu", "-chardev"):
        done = run(what, "help")
        tap.ok(done.returncode == 0 and len(done.stdout.splitlines()) > 1, "%s help lists what there is" % what)
    done = run("-device", "virtio-blk-pci,help")
    tap.ok(done.returncode == 0 and "drive" in done.stdout, "-device virtio-blk-pci,help lists its properties")
    sys.exit(tap.end())


main()
