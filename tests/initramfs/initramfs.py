#!/usr/bin/env python3
"""The test guest's initramfs is what it should be, read by an independent reader: busybox's cpio."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import ROOT, artifact, scratch  # noqa: E402
from tap import Tap  # noqa: E402


def main():
    tap = Tap()
    image = artifact("initramfs.cpio")
    if not os.path.exists(image):
        tap.ok(False, "%s is there" % image)
        sys.exit(tap.end())
    with scratch() as folder:
        again = os.path.join(folder, "again.cpio")
        tool = os.path.join(ROOT, "scripts", "mkinitramfs")
        done = subprocess.run([tool, artifact(""), "-o", again, "--add", "tests/extra=" + __file__])
        tap.ok(done.returncode == 0, "mkinitramfs makes one with a file added")
        with open(again, "rb") as f:
            names = subprocess.run(["busybox", "cpio", "-t"], stdin=f, capture_output=True, text=True)
        listed = names.stdout.split()
        tap.ok(names.returncode == 0 and "tests/extra" in listed, "cpio lists it, the added file included")
        for name in ("init", "bin/busybox", "bin/sh", "dev/console", "etc/modules", "tests/cpus"):
            tap.ok(name in listed, "it holds %s" % name)
        modules = [os.path.basename(n)[:-3] for n in listed if n.endswith(".ko")]
        for first, second in (("virtio_ring", "virtio"), ("virtio", "virtio_pci"), ("virtio_pci_modern_dev", "virtio_pci"),
                              ("failover", "net_failover"), ("net_failover", "virtio_net")):
            tap.ok(first in modules and second in modules and modules.index(first) < modules.index(second),
                   "%s is loaded before %s" % (first, second))
        done = subprocess.run([tool, artifact(""), "-o", again, "--bare", "--module", "virtio_rng"])
        with open(again, "rb") as f:
            listed = subprocess.run(["busybox", "cpio", "-t"], stdin=f, capture_output=True, text=True).stdout.split()
        modules = {os.path.basename(n)[:-3] for n in listed if n.endswith(".ko")}
        tap.ok(done.returncode == 0 and {"virtio_rng", "virtio"} <= modules and "virtio_pci" not in modules, "--bare: no modules but those asked for")
        for missing, what in (("--add", "no/equals"), ("--module", "nosuchmodule"), ("--busybox", folder + "/none")):
            done = subprocess.run([tool, artifact(""), "-o", again, missing, what], capture_output=True, text=True)
            tap.ok(done.returncode == 1 and len(done.stderr.splitlines()) == 1 and os.path.basename(what) in done.stderr,
                   "%s %s: one line that names it, status 1" % (missing, os.path.basename(what)))
    sys.exit(tap.end())


main()
