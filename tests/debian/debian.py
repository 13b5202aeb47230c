#!/usr/bin/env python3
"""Boots the Debian system that scripts/mkrootfs has made, from virtio-blk, and works in it.

	tests/debian/debian.py commands CPUS    the login prompt, compilers, interpreters, some stress, power-off
	tests/debian/debian.py stress CPUS      stress-ng, every stressor of three classes for a minute, one after the other
	tests/debian/debian.py together CPUS    all of them at the same time for a minute

TRINE_STRESS_SECONDS is how long each stressor runs, 60 unless told. The system starts on a copy of its disk; what is
to be run in it comes on a second one.
"""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import ROOT, Guest, Lost, artifact, report, report_lost, scratch  # noqa: E402
from tap import Tap  # noqa: E402

# A guest that has hung, not one on a busy host.
PATIENCE = 400

# The stressor "stream" takes twelve times the third-level cache, which on some hosts is more than the guest's memory.
MANY = "--class cpu,vm,os %%s 1 --timeout %s --verify --stream-l3-size 16M" % os.environ.get("TRINE_STRESS_SECONDS", "60")


def copy_sparsely(source, target):
    with open(source, "rb") as f, open(target, "wb") as out:
        end = os.fstat(f.fileno()).st_size
        out.truncate(end)
        at = 0
        while at < end:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            stop = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            while at < stop:
                at += os.copy_file_range(f.fileno(), out.fileno(), stop - at, at, at)


def script_disk(path, script):
    with open(os.path.join(ROOT, "tests", "debian", script), "rb") as f:
        body = f.read()
    with open(path, "wb") as f:
        f.write(body + b"\n" * (-len(body) % 4096))


def e2fs(tool, *arguments):
    """Debian has them where not everybody's PATH leads."""
    return subprocess.run([shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin"), *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def work(tap, cpus, script, arguments, patience, memory="1G", room=0):
    """One boot, one script, one power-off. @room: bytes of the disk, where it shall have more than was made for it."""
    label = "%s vCPU: " % cpus
    with scratch() as folder:
        disk, second = os.path.join(folder, "debian.img"), os.path.join(folder, "script.img")
        copy_sparsely(artifact("debian.img"), disk)
        if room:
            os.truncate(disk, room)
            e2fs("e2fsck", "-f", "-p", disk)
            e2fs("resize2fs", disk)
        script_disk(second, script)
        guest = Guest("-drive", "file=%s,format=raw,if=virtio,readonly=on" % second, cpus=int(cpus), memory=memory,
                      disk=disk, append="trine.root=/dev/vda", terminal=True)
        try:
            guest.expect(r"^debian login: ", PATIENCE)
            tap.ok(True, label + "a login prompt comes")
            guest.send("root\n")
            guest.expect(r"root@debian:~# ", PATIENCE)
            guest.send("sh /dev/vdb %s\n" % " ".join([cpus, *arguments]))
            report(tap, guest, guest.verdicts(patience), label)
        except Lost as lost:
            report_lost(tap, lost, label)
            guest.kill()
        # Only a journal that has been written back says something.
        if guest.process.returncode == 0:
            check = e2fs("e2fsck", "-f", "-n", disk)
            if not tap.ok(check.returncode == 0, label + "it leaves a sound file system"):
                tap.diag(check.stdout.decode("utf-8", "replace")[-2000:])


def commands(tap, cpus):
    work(tap, cpus, "commands.sh", [], PATIENCE)


def stress(tap, cpus):
    work(tap, cpus, "stress.sh", (MANY % "--sequential").split(), 6 * 3600, "2G")


def together(tap, cpus):
    # Processes of "resched" count in one counter and take no turns: beside others it finds that wrong, natively too.
    work(tap, cpus, "stress.sh", (MANY % "--all").split() + ["--exclude", "resched"], 3600, "12G", 48 << 30)


SUBJECTS = {"commands": commands, "stress": stress, "together": together}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SUBJECTS:
        sys.exit("usage: debian.py %s CPUS" % "|".join(SUBJECTS))
    tap = Tap()
    SUBJECTS[sys.argv[1]](tap, sys.argv[2])
    sys.exit(tap.end())


main()
