"""A client that nobody here wrote: Debian's QEMU, unmodified, with -accel kvm through libtrine-preload.so.

	tests/clients/qemu.py q35 split        one machine type and one place of the interrupt chips
	QEMU_ACCEL=tcg tests/clients/qemu.py pc on    the reference: what fails there is the test's fault

SeaBIOS (qboot on microvm) starts the test guest's kernel on two CPUs (on one without chips in the kernel, see cpus());
then stop and cont, savevm and loadvm, and system_reset are tried on the running guest, and the guest powers itself off.
"""
import json
import os
import re
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, Guest, Lost, artifact, kernel_options, scratch  # noqa: E402
from tap import Tap  # noqa: E402

BOOT_SECONDS = 240
STEP_SECONDS = 60


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
    return 1 if chips == "off" else 2


def command(machine, chips, folder):
    """QEMU's command line, and its environment."""
    image = os.path.join(folder, "state.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    if os.environ.get("QEMU_ACCEL") == "tcg":
        accel = ["-machine", machine, "-accel", "tcg", "-cpu", "max"]
        prefix = []
    else:
        accel = ["-machine", "%s,kernel-irqchip=%s" % (machine, chips), "-accel", "kvm", "-cpu", "host"]
        prefix = ["env", "LD_PRELOAD=" + os.path.join(BUILD, "libtrine-preload.so")]
    return [*prefix, "qemu-system-x86_64", *accel, "-nodefaults", "-no-user-config", "-smp",
            str(cpus(machine, chips)), "-m", "256M", *kernel_options(), "-display", "none", "-serial", "stdio",
            "-qmp", "unix:%s,server=on,wait=off" % os.path.join(folder, "qmp"),
            "-drive", "if=none,id=state,format=qcow2,file=" + image]


class Session:
    def __init__(self, tap, machine, chips, folder):
        self.tap = tap
        self.guest = Guest(terminal=True, argv=command(machine, chips, folder))
        self.qmp = None
        self.path = os.path.join(folder, "qmp")
        self.serial = 0
        self.nr_cpus = cpus(machine, chips)

    def ask(self, line, timeout=STEP_SECONDS):
        """Types a command into the guest's shell; what it printed."""
        self.serial += 1
        # The mark is split where it is typed, so that the echo of the line is not taken for its output.
        self.guest.send("%s; echo =%d'='\n" % (line, self.serial))
        start = self.guest.seen
        self.guest.expect(r"^=%d=$" % self.serial, timeout)
        return self.guest.text[start:self.guest.seen]

    def boots(self):
        self.guest.expect(r"Linux \S+, %d CPU" % self.nr_cpus, BOOT_SECONDS)
        self.guest.expect(r"# ", STEP_SECONDS)
        return True

    def cpus(self):
        runs = ["taskset %d cat /proc/self/stat >/dev/null" % (1 << n) for n in range(self.nr_cpus)]
        out = self.ask(" && ".join(runs + ["echo all"]))
        return re.search(r"^all$", out, re.M) is not None

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


def main():
    machine, chips = sys.argv[1:3]
    tap = Tap()
    steps = [("boots", "SeaBIOS and the kernel reach init on %d CPU" % cpus(machine, chips)),
             ("cpus", "each CPU runs programs"),
             ("stops", "stop halts the guest and cont resumes it"),
             ("saves", "loadvm brings back what savevm saved"),
             ("resets", "system_reset boots again"), ("ends", "poweroff ends QEMU with status 0")]
    with scratch() as folder:
        session = Session(tap, machine, chips, folder)
        session.qmp = Qmp(session.path)
        broken = None
        for step, name in steps:
            label = "%s, kernel-irqchip %s: %s" % (machine, chips, name)
            try:
                good = bool(getattr(session, step)()) if not broken else False
                why = broken and "not reached: " + broken
            except (Lost, OSError, ValueError) as e:
                good, why, broken = False, str(e), str(e)
            tap.ok(good, label)
            if not good:
                tap.diag(why or "it did not")
        if tap.failed:
            tap.diag("\n".join(session.guest.text.splitlines()[-40:]))
        session.guest.kill()
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
