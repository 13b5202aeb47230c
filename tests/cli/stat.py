"""trine-stat sees a running machine's counters from outside, and says what is wrong with what it was asked."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, Guest  # noqa: E402
from tap import Tap  # noqa: E402


def stat(*options):
    return subprocess.run([os.path.join(BUILD, "trine-stat"), *options], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60)


def main():
    tap = Tap()
    for options, word in ((("-i", "x"), "x"), (("-p", "0"), "0"), (("-n", "-3"), "-3"), (("what",), "what"),
                          (("-p", str(os.getpid())), str(os.getpid()))):
        done = stat(*options)
        tap.ok(done.returncode == 1 and not done.stdout and word in done.stderr and done.stderr.count("\n") == 1,
               "%s: one line with %s, status 1" % (" ".join(options), word))
    guest = Guest(terminal=True)
    guest.expect("# ", 120)
    pid = str(guest.process.pid)
    done = stat("-p", pid)
    tap.ok(done.returncode == 0 and done.stdout.startswith("pid %s, lite, 1 vCPU\n" % pid), "a running machine is named")
    found = re.search(r"^  exits +(\d+)$", done.stdout, re.M)
    tap.ok(found and int(found.group(1)) > 0, "and its exits are counted")
    done = stat("-p", pid, "-i", "1", "-n", "2")
    tap.ok(done.returncode == 0 and re.search(r"^  exits +\d+ +[\d.]+/s$", done.stdout, re.M), "rates with -i")
    guest.send("poweroff -f\n")
    tap.ok(guest.wait(60) == 0, "the machine did not mind")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
