#!/usr/bin/env python3
"""The translator under a kernel: its memory, its cache when that is far too small, and its code, all of it verified.

	tests/lite/translator.py memory|flushes|verify|windows|lockstep
"""
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, Guest, Lost, report_lost  # noqa: E402
from tap import Tap  # noqa: E402

PATIENCE = 600
OVERHEAD_KIB = 64 << 10  # over the guest's memory, with one vCPU, after a boot


def start(options, **how):
    """A guest under the translator with these options of lite's."""
    os.environ["TRINE_LITE"] = "engine=jit," + options
    try:
        return Guest(**how)
    finally:
        del os.environ["TRINE_LITE"]


def counters(guest):
    """The engine's, by trine-stat: at the monitor's prompt the guest's own output would come between. What is 0 may not be there."""
    text = subprocess.check_output([os.path.join(BUILD, "trine-stat"), "-p", str(guest.process.pid)], text=True, timeout=60)
    return {name: int(value) for name, value in re.findall(r"^  (lite_\w+) +(\d+)", text, re.M)}


def resident(pid):
    """KiB of the process that are in memory: the guest's RAM, and the rest."""
    ram = rest = 0
    ours = False
    with open("/proc/%d/smaps" % pid, encoding="utf-8") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                ours = "/memfd:trine-ram" in line
            elif line.startswith("Pss:"):
                size = int(line.split()[1])
                ram, rest = (ram + size, rest) if ours else (ram, rest + size)
    return ram, rest


def memory(tap):
    guest = start("verify=off", terminal=True)
    guest.expect("# ", PATIENCE)
    most = 0
    # After a while, and when the cache has been filled and thrown away.
    for turn in range(3):
        time.sleep(1)
        ram, rest = resident(guest.process.pid)
        most = max(most, rest)
        tap.diag("%d KiB of the guest's memory, %d KiB more" % (ram, rest))
        if turn < 2:
            guest.send("for i in 1 2 3 4 5 6 7 8; do find / -xdev 2>/dev/null | sort | md5sum >/dev/null; done; echo turn=%d\n" % turn)
            guest.expect("^turn=%d$" % turn, PATIENCE)
    tap.ok(ram > 32 << 10, "the guest's own memory is told apart")
    tap.ok(most < OVERHEAD_KIB, "%d KiB are in memory beside the guest's own, at most %d" % (most, OVERHEAD_KIB))
    found = counters(guest)
    tap.ok(found.get("lite_jit_blocks", 0) > 10000, "it was the translator")
    guest.kill()


def flushes(tap):
    for cpus in (1, 2):
        guest = start("cache=1,verify=off", cpus=cpus, terminal=True)
        guest.expect("# ", PATIENCE)
        for cpu in range(cpus):
            guest.send("taskset %d sh -c 'find / -xdev | sort | gzip | gunzip | wc -l; echo cpu=$(cut -d\" \" -f39 /proc/self/stat)'\n" %
                       (1 << cpu))
            tap.ok(guest.expect(r"^cpu=(\d+)\n", PATIENCE).group(1) == str(cpu), "%d vCPU, cache of 1 MiB: programs run on CPU %d" %
                   (cpus, cpu))
        found = counters(guest)
        tap.ok(found.get("lite_cache_flushes", 0) >= 20, "the cache was thrown away %d times" % found.get("lite_cache_flushes", 0))
        tap.ok(found.get("lite_jit_bytes", 0) <= 1 << 20, "and was never larger")
        guest.kill()


def verify(tap):
    for cpus in (1, 2):
        guest = start("verify=on", cpus=cpus, terminal=True)
        guest.expect("# ", PATIENCE)
        found = counters(guest)
        tap.ok(found.get("lite_jit_verified", 0) >= found.get("lite_jit_blocks", 0) > 10000,
               "%d vCPU boot, all translated code is verified" % cpus)
        bad = found.get("lite_jit_violations", 0)
        if not tap.ok(not bad, "nothing is wrong with it"):
            tap.diag("%d of %d" % (bad, found["lite_jit_verified"]))
            tap.diag("\n".join(line for line in guest.text.splitlines() if line.startswith("verify: ")))
        guest.kill()


def programs(guest, text):
    """Runs them, with @text for what they work on, and gives back the checksum that they print."""
    guest.send("for i in 1 2 3; do %s | sort | gzip | gunzip | md5sum & done; wait; echo end=%d\n" % (text, os.getpid()))
    sums = re.findall(r"^([0-9a-f]{32})  -", guest.expect(r"(?ms)^(.*?)^end=%d$" % os.getpid(), PATIENCE).group(1), re.M)
    return sums[0] if len(sums) == 3 and len(set(sums)) == 1 else None


def windows(tap):
    """Programs that have a window from their first instruction on, and one that gets it because it runs for long."""
    text = "seq 1 5000"
    expected = None
    for options, what in (("windows=off", "none"), ("windows=eager,verify=on", "for all"), ("windows=eager,lockstep=5000", "for all, compared")):
        for cpus in (1, 2) if options == "windows=eager,verify=on" else (1,):
            guest = start(options, cpus=cpus, terminal=True)
            guest.expect("# ", PATIENCE)
            result = programs(guest, text)
            expected = expected or result
            found = counters(guest)
            used = found.get("lite_windows_opened", 0), found.get("lite_window_maps", 0)
            tap.ok(result and result == expected, "%d vCPU, windows: %s; what programs compute" % (cpus, what))
            if what == "none":
                tap.ok(used == (0, 0), "there is none")
            else:
                tap.ok(used[0] > 10 and used[1] > 100, "%d were opened, %d pages mapped" % used)
            tap.ok(not found.get("lite_jit_violations", 0) and "lockstep:" not in guest.text, "nothing is wrong with the code")
            guest.kill()
    guest = start("windows=on", terminal=True)
    guest.expect("# ", PATIENCE)
    guest.send("awk 'BEGIN { for (i = 0; i < 3000000; i++) s += i % 7; print \"sum=\" s }'\n")
    tap.ok(guest.expect(r"^sum=(\d+)\n", PATIENCE).group(1) == "8999994", "a program that runs for long")
    tap.ok(counters(guest).get("lite_windows_opened", 0) > 0, "has got one by itself")
    guest.kill()


def lockstep(tap):
    """A boot, programs, and modules loaded and unloaded, with the emulator looking on. With TRINE_LONG for an hour."""
    long = bool(os.environ.get("TRINE_LONG"))
    guest = start("lockstep=%d" % (20 if long else 2000), terminal=True)
    guest.expect("# ", PATIENCE)
    end = time.monotonic() + (3600 if long else 0)
    turn = 0
    while turn < 2 or time.monotonic() < end:
        turn += 1
        guest.send("for i in 1 2 3; do rmmod virtio_rng && insmod /lib/modules/virtio_rng.ko; done && find / -xdev | sort | gzip | md5sum && "
                   "echo turn=%d\n" % turn)
        guest.expect("^turn=%d$" % turn, PATIENCE)
    found = counters(guest)
    tap.ok("lockstep:" not in guest.text, "the translation and the emulator agree")
    tap.ok(found.get("lite_lockstep_blocks", 0) > 500000, "%d blocks were compared" % found.get("lite_lockstep_blocks", 0))
    guest.kill()


def main():
    tap = Tap()
    try:
        {"memory": memory, "flushes": flushes, "verify": verify, "windows": windows, "lockstep": lockstep}[sys.argv[1]](tap)
    except Lost as lost:
        report_lost(tap, lost)
    sys.exit(tap.end())


main()
