#!/usr/bin/env python3
"""The engine's options from outside: what -accel help and -d help list is taken, and TRINE_LITE reaches any program."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, artifact, scratch  # noqa: E402
from tap import Tap  # noqa: E402

NOTHING_TO_BOOT = "there is nothing to boot"


def run(*argv, **environment):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                          env={**os.environ, **environment})


def trine(*options, **environment):
    return run(os.path.join(BUILD, "trine"), *options, **environment)


def translator_log(tap, shim):
    """A small 64-bit guest under the translator: what -d in_asm,out_asm shows of it."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        if not re.search(r"^flags\s*:.*\bbmi2\b", f.read(), re.M):
            tap.skip("the translator needs a processor with BMI2", "the translator's log")
            return
    with scratch() as folder:
        log = os.path.join(folder, "log")
        done = run(os.path.join(BUILD, "bench", "speed-kvm"), os.path.join(BUILD, "bench", "speed.elf"), "1", LD_PRELOAD=shim,
                   TRINE_LITE="engine=jit,log=in_asm+out_asm,logfile=" + log)
        text = ""
        if os.path.exists(log):
            with open(log, encoding="ascii") as f:
                text = f.read()
    tap.ok(done.returncode == 0, "a guest runs under the translator with a log of its code")
    blocks = re.findall(r"^IN: (0x[0-9a-f]+), mode 0x[0-9a-f]+\n((?:0x[0-9a-f]+:.*\n)*)\n"
                        r"OUT: for (0x[0-9a-f]+), (\d+ \+ \d+) bytes\n((?:0x[0-9a-f]+:.*\n)+)\n", text, re.M)
    tap.ok(len(blocks) > 10 and len(blocks) == text.count("IN: ") == text.count("OUT: "), "each block with what became of it")
    line = re.compile(r"0x[0-9a-f]+:  ((?:[0-9a-f]{2} )+) +[a-z]\w*|0x[0-9a-f]+:  \.quad$")
    good = True
    for start, guest, start2, size, host in blocks:
        sizes = [8 if ".quad" in x else len(line.match(x).group(1).split()) if line.match(x) else 0 for x in host.splitlines()]
        good = good and start == start2 and all(map(line.match, guest.splitlines())) and min(sizes) > 0
        good = good and sum(sizes) == sum(map(int, size.split(" + ")))
    tap.ok(good, "an instruction a line, all bytes of the host's code among them")


def main():
    tap = Tap()
    done = trine("-accel", "help")
    tap.ok(done.returncode == 0 and not done.stderr, "-accel help ends with 0")
    properties = re.findall(r"^ +(\w+)=(\S+) ", done.stdout, re.M)
    tap.ok({name for name, _ in properties} == {"engine", "lockstep", "windows", "cache", "verify"}, "it lists lite's properties")
    for name, values in properties:
        for value in values.replace("MIB", "64").replace("N", "1000").split("|"):
            done = trine("-accel", "lite,%s=%s" % (name, value))
            tap.ok(done.returncode == 1 and NOTHING_TO_BOOT in done.stderr, "-accel lite,%s=%s is taken" % (name, value))
    done = trine("-d", "help")
    items = re.findall(r"^(\w+) ", done.stdout, re.M)
    tap.ok(done.returncode == 0 and not done.stderr and set(items) == {"in_asm", "out_asm", "exits"}, "-d help lists the items")
    for item in items + [",".join(items)]:
        done = trine("-d", item)
        tap.ok(done.returncode == 1 and NOTHING_TO_BOOT in done.stderr, "-d %s is taken" % item)

    done = trine("-accel", "lite", "-display", "none", "-kernel", artifact("vmlinuz"), TRINE_LITE="engine=steam")
    tap.ok(done.returncode == 1 and "TRINE_LITE" in done.stderr and "engine=steam" in done.stderr,
           "a wrong TRINE_LITE ends the monitor, and is named")
    shim = os.path.join(BUILD, "libtrine-preload.so")
    client = os.path.join(BUILD, "tests", "api-kvm-run")
    with scratch() as folder:
        log = os.path.join(folder, "log")
        done = run(client, "ports", LD_PRELOAD=shim, TRINE_LITE="log=exits,logfile=" + log)
        text = ""
        if os.path.exists(log):
            with open(log, encoding="ascii") as f:
                text = f.read()
        tap.ok(done.returncode == 0 and "not ok" not in done.stdout, "a program under the shim with TRINE_LITE")
        tap.ok(re.search(r"^vcpu \d+ exit user, rip 0x[0-9a-f]+: out port 0x[0-9a-f]+, 1 x \d bytes$", text, re.M),
               "its exits are in the log file")
        tap.ok(all(re.match(r"vcpu \d+ exit \w+, rip 0x[0-9a-f]+(: .+)?$", line) for line in text.splitlines()),
               "and nothing else")
    done = run(client, "ports", LD_PRELOAD=shim, TRINE_LITE="lockstep=often")
    tap.ok(done.returncode != 0 and "lockstep=often" in done.stderr, "under the shim a wrong TRINE_LITE is named")
    translator_log(tap, shim)
    sys.exit(tap.end())


main()
