"""Runs a monitor and talks to its guest's console: what the boot tests stand on.

	guest = Guest(test="cpus", arg="2", cpus=2)
	verdicts = guest.verdicts(timeout=120)          # [(True, "nproc says 2"), ...]

	guest = Guest(terminal=True)
	guest.expect(r"\\$ ", 60); guest.send("poweroff -f\\n"); guest.wait(60)

The environment decides what is run: TRINE_BUILD names the build directory, TRINE_PROGRAM a monitor other than
"BUILD/trine -accel lite", with the options that it needs. The reference is
TRINE_PROGRAM="qemu-system-x86_64 -accel tcg -M q35": what fails there is the test's fault.
"""
import codecs
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
BUILD = os.path.realpath(os.environ.get("TRINE_BUILD") or os.path.join(ROOT, "build"))
LONG = bool(os.environ.get("TRINE_LONG"))

VERDICT = re.compile(r"^(not )?ok \d+ - (.*?)\s*$")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1bc|\x1b[()][A-Z0-9]")
UNFINISHED = re.compile(r"(\x1b(\[[0-9;?]*|[()])?)?\Z")


class Lost(Exception):
    """The guest did not say what it was waited for. @console: what it said last."""

    def __init__(self, what, console=""):
        super().__init__(what)
        self.console = console[-3000:]


def program():
    return shlex.split(os.environ.get("TRINE_PROGRAM") or "%s -accel lite" % os.path.join(BUILD, "trine"))


def artifact(name):
    return os.path.join(BUILD, "guest", name)


def kernel_options(append=""):
    return ["-kernel", artifact("vmlinuz"), "-initrd", artifact("initramfs.cpio"),
            "-append", ("console=ttyS0 quiet panic=-1 " + append).strip()]


class Guest:
    """One run of the monitor. @options are added to its command line; @argv replaces it whole."""

    def __init__(self, *options, test=None, arg=None, cpus=1, memory="256M", disk=None, reboot=False, append="",
                 terminal=False, argv=None, stdin=None):
        if argv is None:
            words = []
            if test:
                words.append("trine.test=" + test)
            if arg is not None:
                words.append("trine.arg=%s" % arg)
            argv = program() + ["-m", memory, "-smp", str(cpus)] + kernel_options(" ".join(words + [append]))
            if disk:
                argv += ["-drive", "file=%s,format=raw,if=virtio" % disk]
            if not reboot:
                argv.append("-no-reboot")
            argv += ["-nographic", *options]
        self.argv = argv
        self.text = ""
        self.seen = 0
        self.partial = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.master = None
        self.began = time.monotonic()
        if terminal:
            self.master, slave = pty.openpty()
            self.slave = slave
            self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                            cwd=ROOT, preexec_fn=lambda: _controlling(slave))
            self.output = self.master
        else:
            self.slave = None
            self.process = subprocess.Popen(argv, stdin=stdin if stdin is not None else subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                            start_new_session=True, cwd=ROOT)
            self.output = self.process.stdout.fileno()

    def read(self, timeout):
        """Takes in what the console says within @timeout seconds. False at its end."""
        ready, _, _ = select.select([self.output], [], [], max(0, timeout))
        if not ready:
            return True
        try:
            data = os.read(self.output, 65536)
        except OSError:
            data = b""
        # An escape sequence or a character may arrive in two parts.
        text = self.partial + self.decoder.decode(data, not data)
        cut = UNFINISHED.search(text).start() if data else len(text)
        self.partial = text[cut:]
        self.text += ESCAPES.sub("", text[:cut]).replace("\r", "")
        return bool(data)

    def expect(self, pattern, timeout):
        """Waits until the console has said @pattern, after what was last waited for. Returns the match."""
        end = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.text[self.seen:], re.M)
            if match:
                self.seen += match.end()
                return match
            left = end - time.monotonic()
            if left <= 0:
                self.kill()
                raise Lost("no %r within %d s" % (pattern, timeout), self.text)
            if not self.read(min(left, 1)) or (self.slave is not None and self.process.poll() is not None):
                self.read(0.1)
                if re.search(pattern, self.text[self.seen:], re.M):
                    continue
                raise Lost("the monitor ended (status %s) without %r" % (self.wait(10), pattern), self.text)

    def says(self, pattern, timeout):
        """Whether the console says @pattern within @timeout seconds; nothing is lost when it does not."""
        end = time.monotonic() + timeout
        while not re.search(pattern, self.text[self.seen:], re.M):
            if time.monotonic() >= end or not self.read(0.2):
                return False
        return True

    def send(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self.master, data):]

    def wait(self, timeout):
        """The monitor's exit status, negative for a signal; None when it had to be killed after @timeout seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                while self.slave is None and self.read(0):
                    pass
                self.read(0)
                return self.process.returncode
            self.read(0.1)
            if self.slave is None and select.select([self.output], [], [], 0)[0]:
                time.sleep(0.01)
        self.kill()
        return None

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def verdicts(self, timeout):
        """Runs to the end. The guest's verdicts, with the machine's own: complete, and ended with status 0."""
        status = self.wait(timeout)
        found = [(not m.group(1), m.group(2)) for m in map(VERDICT.match, self.text.splitlines()) if m]
        plan = re.search(r"^1\.\.(\d+)\s*$", self.text, re.M)
        found.append((bool(plan) and int(plan.group(1)) == len(found) > 0, "the guest's test runs to its end"))
        found.append((status == 0, "the monitor ends with status 0" if status == 0 else
                      "the monitor ends with status 0, not with %s" %
                      ("a time-out after %d s" % timeout if status is None else status)))
        return found


def _controlling(fd):
    import fcntl
    import termios
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def report(tap, guest, verdicts, label=""):
    """Passes a guest's verdicts on; its console when one is bad."""
    good = True
    for passed, name in verdicts:
        good &= tap.ok(passed, label + name)
    if not good:
        tap.diag("command: " + shlex.join(guest.argv))
        tap.diag("\n".join(guest.text.splitlines()[-60:]))
    return good


def report_lost(tap, lost, label=""):
    """Fails for a Lost guest, and shows its console."""
    tap.ok(False, label + str(lost))
    tap.diag(lost.console)


def scratch():
    """A directory that goes away with the object."""
    return tempfile.TemporaryDirectory(prefix="trine-test-")
