"""trine-stat sees a running machine's counters from outside, and says what is wrong with what it was asked."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, Guest, Lost, report_lost, scratch  # noqa: E402
from tap import Tap  # noqa: E402


def stat(*options):
    return subprocess.run([os.path.join(BUILD, "trine-stat"), *options], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60)


def counters(text):
    return {name: int(value) for name, value in re.findall(r"^  (\w+) +(\d+)", text, re.M)}


def running(tap, log, unused):
    """One guest, looked at by trine-stat, by its monitor's prompt and by its log, which its own option says more of than TRINE_LITE."""
    os.environ["TRINE_LITE"] = "logfile=" + unused
    guest = Guest("-d", "exits", "-D", log, terminal=True)
    del os.environ["TRINE_LITE"]
    guest.expect("# ", 120)
    pid = str(guest.process.pid)
    done = stat("-p", pid)
    tap.ok(done.returncode == 0 and done.stdout.startswith("pid %s, lite, 1 vCPU\n" % pid), "a running machine is named")
    first = counters(done.stdout)
    tap.ok(first.get("exits", 0) > 0, "and its exits are counted")
    tap.ok(first.get("guest_time_ns", 0) > 10**8, "and the time in guest code")
    tap.ok(first.get("lite_tlb_fills", 0) > 0, "and what the engine did")
    done = stat("-p", pid, "-i", "1", "-n", "2")
    tap.ok(done.returncode == 0 and re.search(r"^  exits +\d+ +[\d.]+/s$", done.stdout, re.M), "rates with -i")
    shares = re.findall(r"^  (?:guest|core|halt|monitor)_time_ns +\d+ +([\d.]+)%$", done.stdout, re.M)
    tap.ok(shares and sum(map(float, shares)) < 250, "of time, as shares of a CPU")
    tap.ok(re.search(r"^  lite_block_bytes +\d+$", done.stdout, re.M), "none of what is no rate")

    guest.send("\x01c")
    guest.expect(r"\(trine\) ", 10)
    guest.send("info stats\n")
    text = guest.expect(r"(?s)info stats\n(.*?)\(trine\) ", 10).group(1)
    later = counters(text)
    tap.ok(set(first) <= set(later) and all(later[k] >= first[k] for k in first if k != "lite_block_bytes"),
           "info stats at the monitor's prompt has the same, later")
    tap.ok(later["exits"] == sum(v for k, v in later.items() if k.startswith("exit_")), "the exits' reasons add up")
    guest.send("info jit\n")
    text = guest.expect(r"(?s)info jit\n(.*?)\(trine\) ", 10).group(1)
    tap.ok(set(counters(text)) == {k for k in later if k.startswith("lite_")}, "info jit the engine's")
    guest.send("info stats user_exit\n")
    text = guest.expect(r"(?s)info stats user_exit\n(.*?)\(trine\) ", 10).group(1)
    tap.ok(set(counters(text)) == {k for k in later if "user_exit" in k}, "info stats PART those with it in their names")
    for line, answer in (("log none", ""), ("log exits,everything", "everything"), ("logfile /nowhere/at/all", "/nowhere/at/all")):
        guest.send(line + "\n")
        text = guest.expect(r"(?s)%s\n(.*?)\(trine\) " % line, 10).group(1)
        tap.ok(answer in text if answer else not text, "%s at the prompt %s" % (line, "is refused" if answer else "is taken"))
    size = os.path.getsize(log)
    guest.send("stop\ncont\n")
    guest.expect(r"cont\n\(trine\) ", 10)
    guest.send("info version\n")
    guest.expect(r"info version\n.*\n\(trine\) ", 10)
    tap.ok(os.path.getsize(log) == size, "and then nothing is logged")
    guest.send("log exits\n")
    guest.expect(r"log exits\n\(trine\) ", 10)
    guest.send("\x01c")
    guest.send("poweroff -f\n")
    tap.ok(guest.wait(60) == 0, "the machine did not mind")
    with open(log, encoding="ascii") as f:
        lines = f.read().splitlines()
    tap.ok(all(re.match(r"vcpu 0 exit \w+, rip 0x[0-9a-f]+(: .+)?$", line) for line in lines), "-d exits: a line an exit")
    tap.ok(sum(": out port 0x3f8, 1 x 1 bytes" in line for line in lines) > 100, "the serial port's among them")
    tap.ok(len(lines) > later["exits"], "as many as were counted (%d lines)" % len(lines))
    tap.ok(os.path.getsize(log) > size, "log exits begins anew")
    with open(unused, encoding="ascii") as f:
        tap.ok(not f.read(), "-D wins over TRINE_LITE")


def main():
    tap = Tap()
    for options, word in ((("-i", "x"), "x"), (("-p", "0"), "0"), (("-n", "-3"), "-3"), (("what",), "what"),
                          (("-p", str(os.getpid())), str(os.getpid()))):
        done = stat(*options)
        tap.ok(done.returncode == 1 and not done.stdout and word in done.stderr and done.stderr.count("\n") == 1,
               "%s: one line with %s, status 1" % (" ".join(options), word))
    with scratch() as folder:
        try:
            running(tap, os.path.join(folder, "log"), os.path.join(folder, "unused"))
        except Lost as lost:
            report_lost(tap, lost)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
