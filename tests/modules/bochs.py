#!/usr/bin/env python3
"""Boots a Linux kernel in Bochs, the one emulator that has Intel's VT-x: where trine-intel.ko is tested.

	tests/modules/bochs.py --initrd build/modules/initramfs.cpio --append trine.test=api --timeout 300
	tests/modules/bochs.py --cpu core2_penryn_t9600 ...        VT-x without EPT
	tests/modules/bochs.py --cpu corei5_lynnfield_750 ...      EPT without unrestricted guest

The guest's serial port goes to standard output. The run ends when the guest powers off (status 0), when it asks for a reset
(1: a triple fault is one too), or after --timeout seconds (124).

	import bochs
	text, status = bochs.run(kernel, initrd, append, cpu="corei7_skylake_x", timeout=300, echo=None)

What it takes is the group "bochs" of scripts/packages.
"""
import argparse
import codecs
import glob
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.path.realpath(os.environ.get("TRINE_BUILD") or os.path.join(ROOT, "build"))

EPT, NO_UNRESTRICTED, NO_EPT = "corei7_skylake_x", "corei5_lynnfield_750", "core2_penryn_t9600"
POWERED_OFF, RESET, TIMED_OUT = 0, 1, 124

# Instructions in a second of the machine's, by all of its clocks. Its waits are as many instructions, so more are no help.
IPS = 50000000
# A kernel has to be told: the CPUID of some of the processors promises a TSC that is seventy times as fast, and then each wait is as much longer.
# The serial line is as slow as a real one, at the 9600 baud that a console has by itself a line of text takes five million instructions.
CLOCK, CONSOLE = "tsc_early_khz=%d" % (IPS // 1000), "console=ttyS0,115200"

BIOS, VGA_BIOS = "/usr/share/bochs/BIOS-bochs-latest", "/usr/share/vgabios/vgabios.bin"

GRUB = """set timeout=0
linux /boot/vmlinuz %s
initrd /boot/initrd
boot
"""

# sync=none: the guest's time follows its instructions, so nothing times out because the host is slow.
BOCHSRC = """megs: {memory}
cpu: model={cpu}, count={cpus}, ips={ips}, reset_on_triple_fault=0
romimage: file={bios}
vgaromimage: file={vga_bios}
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path="{cd}", status=inserted
com1: enabled=1, mode=file, dev="{serial}"
display_library: term
sound: driver=dummy
clock: sync=none
log: "{log}"
panic: action=fatal
error: action={report}
info: action={report}
debug: action=ignore
"""


def make_cd(scratch, kernel, initrd, append):
    tree = os.path.join(scratch, "cd")
    os.makedirs(os.path.join(tree, "boot", "grub"))
    for name, path in (("vmlinuz", kernel), ("initrd", initrd)):
        os.link(path, os.path.join(tree, "boot", name)) if same_device(path, tree) else \
            os.symlink(os.path.realpath(path), os.path.join(tree, "boot", name))
    with open(os.path.join(tree, "boot", "grub", "grub.cfg"), "w") as f:
        f.write(GRUB % append)
    cd = os.path.join(scratch, "boot.iso")
    done = subprocess.run(["grub-mkrescue", "-o", cd, tree, "--", "-follow", "on"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit("bochs.py: grub-mkrescue: " + done.stdout[-2000:])
    return cd


def same_device(path, other):
    return os.stat(path).st_dev == os.stat(other).st_dev and not os.path.islink(path)


class Tail:
    """What the guest has written to its serial port so far."""

    def __init__(self, path, echo):
        self.file = open(path, "rb")
        self.echo = echo
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text, self.screen = "", b""

    def read(self):
        new = self.decoder.decode(self.file.read())
        self.text += new
        if self.echo and new:
            self.echo.write(new)
            self.echo.flush()


def wait(process, master, tail, timeout):
    """Until Bochs ends. Its screen is drawn to a terminal that nobody looks at, but somebody has to empty."""
    deadline = time.monotonic() + timeout
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        if select.select([master], [], [], 0.2)[0]:
            try:
                tail.screen = (tail.screen + os.read(master, 65536))[-2000:]
            except OSError:
                pass  # the terminal's other side is closed: Bochs is about to end
        tail.read()
    return True


def require():
    """Ends a test, failed, where Bochs cannot be run: scripts/setup installs what it takes."""
    missing = [name for name in ("bochs", "grub-mkrescue", "xorriso", "mformat") if not shutil.which(name)]
    missing += [path for path in (BIOS, VGA_BIOS, "/usr/lib/grub/i386-pc/moddep.lst") if not os.path.exists(path)]
    missing += [] if glob.glob("/usr/lib/*/bochs/plugins/libbx_term_gui.so") else ["bochs-term"]
    if missing:
        print("not ok 1 - Bochs can be run\n# missing: %s; scripts/setup bochs installs it\n1..1" % ", ".join(missing))
        sys.exit(1)


def run(kernel, initrd, append="", cpu=EPT, cpus=1, memory=512, timeout=300, echo=None, log=None):
    """(what the guest wrote, POWERED_OFF, RESET or TIMED_OUT). @echo.write() gets the same piece by piece; Bochs's own log goes to @log.
    @append: the kernel's command line, to which CLOCK and CONSOLE are added."""
    with tempfile.TemporaryDirectory(prefix="trine-bochs-") as scratch:
        serial, rc = os.path.join(scratch, "serial"), os.path.join(scratch, "bochsrc")
        # Bochs tells of each EPT violation, each virtual interrupt and more
        report = "report" if log else "ignore"
        log = log or os.path.join(scratch, "log")
        open(serial, "wb").close()
        with open(rc, "w") as f:
            f.write(BOCHSRC.format(cd=make_cd(scratch, kernel, initrd, "%s %s %s" % (CONSOLE, CLOCK, append)), serial=serial,
                                   log=os.path.realpath(log), cpu=cpu, cpus=cpus, memory=memory, ips=IPS, report=report,
                                   bios=BIOS, vga_bios=VGA_BIOS))
        # Debian's Bochs stops in its debugger at the first instruction.
        commands = os.path.join(scratch, "commands")
        with open(commands, "w") as f:
            f.write("c\n")
        master, slave = pty.openpty()
        process = subprocess.Popen(["bochs", "-q", "-f", rc, "-rc", commands], stdin=slave, stdout=slave, stderr=slave,
                                   cwd=scratch, env=dict(os.environ, TERM="vt100"), start_new_session=True)
        os.close(slave)
        tail = Tail(serial, echo)
        try:
            ended = wait(process, master, tail, timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            os.close(master)
        tail.read()
        if not ended:
            return tail.text, TIMED_OUT
        if not os.path.exists(log):
            sys.exit("bochs.py: Bochs ends at once (%d): %s" % (process.returncode, re.sub(r"[^ -~]+", " ", tail.screen.decode("ascii", "replace"))))
        with open(log, encoding="utf-8", errors="replace") as f:
            return tail.text, POWERED_OFF if "soft power off" in f.read() else RESET


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel", default=os.path.join(BUILD, "guest", "vmlinuz"))
    parser.add_argument("--initrd", default=os.path.join(BUILD, "guest", "initramfs.cpio"))
    parser.add_argument("--append", default="", help="added to the kernel's command line")
    parser.add_argument("--cpu", default=EPT, help="Bochs's name of the processor (bochs --help cpu); default %(default)s")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=512, help="MiB")
    parser.add_argument("--timeout", type=float, default=300, help="seconds")
    parser.add_argument("--log", help="keep Bochs's own log here")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    _, status = run(args.kernel, args.initrd, "panic=-1 " + args.append, args.cpu, args.cpus, args.memory, timeout=args.timeout,
                    echo=sys.stdout, log=args.log)
    if status != POWERED_OFF:
        print("bochs.py: %s" % ("the guest was reset or Bochs gave up" if status == RESET else "time is up"),
              file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
