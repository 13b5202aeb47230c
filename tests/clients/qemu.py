#!/usr/bin/env python3
"""A client that nobody here wrote: Debian's QEMU, unmodified, with -accel kvm through libtrine-preload.so.

	tests/clients/qemu.py q35 split        one machine type and one place of the interrupt chips
	tests/clients/qemu.py q35 split boots,migrates,ends     some of the steps
	tests/clients/qemu.py q35 on boots,leaves=FILE          a guest that stands in FILE
	tests/clients/qemu.py q35 on arrives=FILE,ends          and goes on from there: on another engine, for example
	QEMU_CPU=host,kvm=off,hv-relaxed... tests/clients/qemu.py q35 on boots,hyperv,cpus     a guest that takes KVM for Hyper-V
	QEMU_ACCEL=tcg tests/clients/qemu.py pc on    the reference: what fails there is the test's fault

SeaBIOS (qboot on microvm) starts the test guest's kernel on two CPUs (on one without chips in the kernel, see cpus(), or with
QEMU_CPUS=1); then stop and cont, savevm and loadvm, migration to another QEMU and system_reset are tried on the running guest, and
the guest powers itself off.
"""
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, Guest, Lost, artifact, kernel_options, scratch  # noqa: E402
from tap import Tap  # noqa: E402

ACCEL = os.environ.get("QEMU_ACCEL")
CPU = os.environ.get("QEMU_CPU") or "host"
BOOT_SECONDS = 240
STEP_SECONDS = 240


class Qmp:
    """QEMU's machine protocol on a socket: qmp("stop"), qmp.hmp("savevm x")."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(300):
            try:
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.1)
        self.socket.settimeout(STEP_SECONDS)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise Lost("QEMU closed its monitor at %s" % command)
            answer = json.loads(line)
            if "event" not in answer:
                break
        if "error" in answer:
            raise Lost("%s: %s" % (command, answer["error"]["desc"]))
        return answer["return"]

    def hmp(self, line):
        return self("human-monitor-command", **{"command-line": line}).strip()


def cpus(machine, chips):
    """With its APICs in user space Debian's QEMU (7.2.22) hangs when it starts a second CPU, on Linux's own KVM at the same
    place, SeaBIOS's handle_smp: CPU_INTERRUPT_SIPI is only taken back for TCG, so the thread of an AP that halts goes
    round in QEMU itself, without KVM_RUN and with QEMU's lock held."""
    return 1 if chips == "off" else int(os.environ.get("QEMU_CPUS") or 2)


def command(machine, chips, folder, *options):
    """QEMU's command line, and its environment."""
    image = os.path.join(folder, "state.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    if ACCEL == "tcg":
        accel = ["-machine", machine, "-accel", "tcg", "-cpu", "max"]
        prefix = []
    else:
        accel = ["-machine", "%s,kernel-irqchip=%s" % (machine, chips), "-accel", "kvm", "-cpu", CPU]
        prefix = [] if ACCEL == "kvm" else ["env", "LD_PRELOAD=" + os.path.join(BUILD, "libtrine-preload.so")]
    return [*prefix, "qemu-system-x86_64", *accel, "-nodefaults", "-no-user-config", "-smp",
            str(cpus(machine, chips)), "-m", "256M", *kernel_options(), "-display", "none", "-serial", "stdio",
            "-qmp", "unix:%s,server=on,wait=off" % os.path.join(folder, "qmp"),
            "-drive", "if=none,id=state,format=qcow2,file=" + image, *options]


class Session:
    """One guest, wherever it is."""

    def __init__(self, machine, chips, folder):
        self.machine, self.chips, self.folder = machine, chips, folder
        self.guest = self.qmp = None
        self.serial = 0
        self.nr_cpus = cpus(machine, chips)

    def start(self, *options):
        """A QEMU; the one that was there is left alone."""
        folder = tempfile.mkdtemp(dir=self.folder)
        self.guest = Guest(terminal=True, argv=command(self.machine, self.chips, folder, *options))
        self.qmp = Qmp(os.path.join(folder, "qmp"))

    def ask(self, line, timeout=STEP_SECONDS):
        """Types a command into the guest's shell; what it printed."""
        self.serial += 1
        # The mark is split where it is typed, so that the echo of the line is not taken for its output.
        self.guest.send("%s; echo =%d'='\n" % (line, self.serial))
        start = self.guest.seen
        self.guest.expect(r"^=%d=$" % self.serial, timeout)
        return self.guest.text[start:self.guest.seen]

    def boots(self):
        if not self.guest:
            self.start()
        self.guest.expect(r"Linux \S+, %d CPU" % self.nr_cpus, BOOT_SECONDS)
        self.guest.expect(r"# ", STEP_SECONDS)
        return True

    def cpus(self):
        runs = ["taskset %d cat /proc/self/stat >/dev/null" % (1 << n) for n in range(self.nr_cpus)]
        out = self.ask(" && ".join(runs + ["echo all"]))
        return re.search(r"^all$", out, re.M) is not None

    def hyperv(self):
        out = self.ask("dmesg | grep Hyper-V; cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
        said = ["Hypervisor detected: Microsoft Hyper-V", "Using hypercall for remote TLB flush", "Using IPI hypercalls", "Using enlightened APIC"]
        return all(text in out for text in said) and re.search(r"^hyperv_clocksource_", out, re.M)

    def stops(self):
        self.ask("(while :; do echo tick; usleep 100000; done) & true")
        self.guest.expect("tick", STEP_SECONDS)
        self.qmp("stop")
        # What was on its way may still come; a guest that is stopped says nothing new for ten of its ticks.
        deadline = time.monotonic() + 10
        silent = False
        while not silent and time.monotonic() < deadline:
            had = len(self.guest.text)
            self.guest.read(1)
            silent = len(self.guest.text) == had
        self.guest.seen = len(self.guest.text)
        self.qmp("cont")
        self.guest.expect("tick", STEP_SECONDS)
        self.ask("kill %1")
        return silent

    def saves(self):
        self.ask("mark=before")
        said = self.qmp.hmp("savevm point")
        if said:
            raise Lost("savevm: " + said)
        self.ask("mark=after; touch /after")
        said = self.qmp.hmp("loadvm point")
        if said:
            raise Lost("loadvm: " + said)
        self.guest.send("\n")
        out = self.ask("echo mark is $mark; ls /after")
        return re.search(r"^mark is before$", out, re.M) and "No such file" in out

    def count(self):
        """A program counts on the console."""
        self.ask("n=0; (while :; do echo tick $((n += 1)).; usleep 50000; done) & mark=$((6 * 7))")
        self.guest.expect(r"tick \d+\.", STEP_SECONDS)

    def counts(self, before):
        """It goes on, with none left out and none twice: @before is what was on the console until the guest moved."""
        self.guest.expect(r"tick \d+\.\n(.*\n)*?tick \d+\.\n", STEP_SECONDS)
        numbers = [int(n) for n in re.findall(r"tick (\d+)\.", before + self.guest.text)]
        if numbers != list(range(1, len(numbers) + 1)):
            raise Lost("it counts %s" % numbers)
        self.ask("kill %1")
        return re.search("^mark is 42$", self.ask("echo mark is $mark"), re.M)

    def leave(self, where):
        """The guest moves to @where. What its console has said from the first tick on."""
        self.qmp("migrate", uri=where)
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            self.guest.read(0.1)
            state = self.qmp("query-migrate")
            if state.get("status") == "completed":
                break
            if state.get("status") in ("failed", "cancelled") or time.monotonic() > deadline:
                raise Lost("migrate: %s" % state)
        self.qmp("quit")
        if self.guest.wait(STEP_SECONDS) != 0:
            raise Lost("quit does not end QEMU with status 0")
        return self.guest.text[self.guest.text.index("tick 1."):]

    def migrates(self):
        self.count()
        there = Session(self.machine, self.chips, self.folder)
        path = os.path.join(self.folder, "migration")
        there.start("-incoming", "unix:" + path)
        before = self.leave("unix:" + path)
        self.guest, self.qmp = there.guest, there.qmp
        return self.counts(before)

    def leaves(self, path):
        self.count()
        before = self.leave("exec:cat >" + path)
        with open(path + ".console", "w", encoding="utf-8") as f:
            f.write(before)
        return True

    def arrives(self, path):
        self.start("-incoming", "exec:cat " + path)
        with open(path + ".console", encoding="utf-8") as f:
            return self.counts(f.read())

    def resets(self):
        # The shell is kept from its prompt: a reset in the middle of the prompt's escape sequence (busybox asks for the
        # cursor) would leave one that takes the first letter of the next boot for its end.
        self.guest.send("echo =reset'='; sleep 1000\n")
        self.guest.expect(r"^=reset=\n", STEP_SECONDS)
        self.qmp("system_reset")
        return self.boots()

    def ends(self):
        self.guest.send("poweroff -f\n")
        return self.guest.wait(STEP_SECONDS) == 0


STEPS = {"boots": "SeaBIOS and the kernel reach init",
         "hyperv": "the guest's clock, flushes, IPIs and APIC are Hyper-V's",
         "cpus": "each CPU runs programs",
         "stops": "stop halts the guest and cont resumes it",
         "saves": "loadvm brings back what savevm saved",
         "migrates": "the guest goes on in another QEMU",
         "resets": "system_reset boots again",
         "leaves": "migrate writes the guest to a file",
         "arrives": "the guest goes on from that file",
         "ends": "poweroff ends QEMU with status 0"}


def main():
    machine, chips = sys.argv[1:3]
    steps = sys.argv[3] if len(sys.argv) > 3 else "boots,cpus,stops,saves,migrates,resets,ends"
    tap = Tap()
    with scratch() as folder:
        session = Session(machine, chips, folder)
        broken = None
        for step, _, arg in (text.partition("=") for text in steps.split(",")):
            label = "%s, kernel-irqchip %s, %d CPU: %s" % (machine, chips, session.nr_cpus, STEPS[step])
            try:
                good = bool(getattr(session, step)(*([arg] if arg else []))) if not broken else False
                why = broken and "not reached: " + broken
            except (Lost, OSError, ValueError) as e:
                good, why, broken = False, str(e), str(e)
            tap.ok(good, label)
            if not good:
                tap.diag(why or "it did not")
        if session.guest:
            if tap.failed:
                session.guest.read(1)
                tap.diag("\n".join(session.guest.text.splitlines()[-40:]))
            session.guest.kill()
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
