#!/usr/bin/env python3
"""Runs commands on an outer machine: Debian's kernel in QEMU's TCG, which emulates AMD-V, with Trine's modules loaded.

	scripts/modules --tests build                                           # trine.ko, trine-amd.ko ..., once
	tests/modules/outer.py --engine amd --program build/tests/api-kvm-system api-kvm-system
	tests/modules/outer.py --engine linux --program build/tests/api-kvm-run 'api-kvm-run hlt' dmesg

Each COMMAND is a line for the machine's shell (busybox). --program puts a program, with the libraries that it needs, into /tests, which
is first in PATH; --add PATH=FILE any other file; --module NAME a module of the kernel's. --engine: amd, intel or null (Trine's, null has no
guests), linux (the kernel's own kvm-amd, the reference), linux-intel, none. What the commands print is passed on; of TAP each verdict is
counted, with the command's name before it. Verdicts of the machine's own: each module loads and unloads, each command's exit status is
0, the kernel had nothing to complain of. --log FILE keeps the kernel's messages.

QEMU runs the machine's processors in turns, in one thread: Debian's QEMU 7.2 with a thread for each (--accel tcg,thread=multi) may keep
code that it translated while another processor rewrote it (text_poke), and then the machine hangs in the breakpoint of a static key.

--bochs MODEL: not QEMU but Bochs, as the processor MODEL (see bochs.py), for the engines of VT-x. It is some hundred times slower than a
processor: ask for little, and give it time.

The kernel runs with slub_debug (red zones, poison, sanity checks); see CHECKS for what its debugging offers.
"""
import argparse
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import bochs  # noqa: E402
from tap import Tap  # noqa: E402

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

# no_timer_check: on a busy host the first ticks come too late for what the kernel thinks of a timer.
CHECKS = "no_timer_check slub_debug=FZP debug_pagealloc=on page_poison=1 init_on_free=1 panic_on_oops=0 hung_task_timeout_secs=60"
ENGINES = {"amd": ["trine", "trine-amd"], "intel": ["trine", "trine-intel"], "null": ["trine", "trine-null"],
           "linux": ["kvm", "kvm_amd"], "linux-intel": ["kvm", "kvm_intel"], "none": []}
OWN = ("trine", "trine-amd", "trine-intel", "trine-null")

# What a kernel says when something is wrong with it.
COMPLAINT = re.compile(
    r"BUG[: ]|WARNING: (?!CPU: \d+ PID: 0 at arch/x86/kernel/smpboot)|\bOops\b|general protection fault|Call Trace|Kernel panic|"
    r"INFO: (task|rcu)|rcu: INFO|soft lockup|hard LOCKUP|refcount_t|[Cc]orrupt|Poison|Redzone|Objects remaining|use-after-free|"
    r"Bad page|unchecked MSR|stack-?segment|double fault|scheduling while atomic|Slab cache still has objects|"
    r"percpu ref|possible circular|leaked|kmemleak: [1-9]|UBSAN|invalid opcode|segfault")


def libraries(program):
    """The shared libraries of @program, as (path in the machine, file)."""
    done = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in done.stdout.splitlines():
        match = re.search(r"(?:(\S+) => )?(/\S+) \(0x", line)
        if match:
            # The loader is found by its own path, the others by name.
            yield (match.group(2) if not match.group(1) else "/lib/" + os.path.basename(match.group(2))), match.group(2)


def without_debug(file, scratch):
    """A copy. Debug information is up to ten times the rest."""
    stripped = os.path.join(tempfile.mkdtemp(dir=scratch), os.path.basename(file))
    subprocess.check_call(["objcopy", "--strip-debug", file, stripped])
    return stripped


def build_initramfs(args, scratch):
    build = os.path.realpath(args.build)
    add = {"outer-init": os.path.join(ROOT, "tests", "modules", "init")}
    options = {}
    for text in args.option:
        module, _, value = text.partition(":")
        options.setdefault(module, []).append(value)
    for name, lines in (("engine", ENGINES[args.engine]), ("commands", args.command)):
        path = os.path.join(scratch, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write("".join(line + "\n" for line in lines))
        add["etc/" + name] = path
    for module, values in options.items():
        path = os.path.join(scratch, "options-" + module)
        with open(path, "w", encoding="utf-8") as f:
            f.write(" ".join(values) + "\n")
        add["etc/options/" + module] = path
    wanted = list(args.module)
    for module in ENGINES[args.engine]:
        if module in OWN:
            add["lib/modules/%s.ko" % module] = without_debug(os.path.join(build, "modules", module + ".ko"), scratch)
        else:
            wanted.append(module)
    for path, file in [("tests/" + os.path.basename(program), without_debug(program, scratch)) for program in args.program] + \
            [text.split("=", 1) for text in args.add]:
        add[path] = file
        with open(file, "rb") as f:
            if f.read(4) == b"\x7fELF":
                add.update(libraries(file))
    output = os.path.join(scratch, "initramfs.cpio")
    subprocess.check_call([os.path.join(ROOT, "scripts", "mkinitramfs"), os.path.join(build, "guest"), "-o", output,
                           *(["--bare"] if args.bochs else []), *("--add=%s=%s" % pair for pair in add.items()), *("--module=" + name for name in wanted)])
    return output


def append(args, console, checks):
    return "rdinit=/outer-init %s panic=-1 %s %s" % (console, checks, args.append)


def in_qemu(args, initramfs, log):
    build = os.path.realpath(args.build)
    argv = ["qemu-system-x86_64", "-M", "q35", "-accel", args.accel, "-cpu", args.cpu, "-smp", str(args.smp), "-m", args.memory,
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-serial", "file:" + log,
            "-kernel", os.path.join(build, "guest", "vmlinuz"), "-initrd", initramfs, "-append",
            append(args, "console=ttyS1 ignore_loglevel", CHECKS)]
    again = [os.path.join(build, "guest", "vmlinuz"), initramfs] if args.again else []
    for text in args.disk + [disk + ",readonly=on" for disk in again]:
        argv += ["-drive", "format=raw,if=virtio,file=" + text]
    return ["timeout", "-s", "KILL", str(args.timeout)] + argv + args.qemu


def complaints(log):
    """Lines of trouble in the kernel's messages since the modules began to load, with what follows them."""
    lines = open(log, encoding="utf-8", errors="replace").read().replace("\r", "").splitlines()
    begin = next((i for i, line in enumerate(lines) if "outer: begin" in line), 0)
    lines = lines[begin:]
    for i, line in enumerate(lines):
        if COMPLAINT.search(line):
            return lines[max(0, i - 3):i + 60]
    return []


class Machine:
    """Reads what the machine says, and turns it into verdicts."""

    def __init__(self, args, tap):
        self.commands, self.tap = args.command, tap
        self.current, self.tag, self.ended, self.done = 0, "", 0, False
        self.rest = ""

    def write(self, text):
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.line(line.rstrip("\r"))

    def flush(self):
        sys.stdout.flush()

    def line(self, line):
        mark = re.fullmatch(r"outer: (.*)", line)
        verdict = re.match(r"(not )?ok (\d+)?(?: - )?(.*)", line)
        if mark:
            self.mark(mark.group(1))
        elif verdict and self.current:
            skip = re.search(r"# SKIP ?(.*)", verdict.group(3))
            name = "%s: %s" % (self.tag, verdict.group(3).split(" # ")[0])
            if skip:
                self.tap.skip(skip.group(1), name)
            else:
                self.tap.ok(not verdict.group(1), name)
        elif line and not re.fullmatch(r"1\.\.\d+( # .*)?", line):
            self.tap.diag(line)

    def mark(self, text):
        status = re.fullmatch(r"(.*) = (\d+)", text)
        if text.startswith("command "):
            self.current = int(text.split()[1])
            command = self.commands[self.current - 1]
            self.tag = command if len(command) < 60 else command[:57] + "..."
            self.tap.diag("---- " + command)
        elif status and status.group(1).startswith("end "):
            self.ended += 1
            self.tap.ok(status.group(2) == "0", "%s: ends with status 0" % self.tag)
            if status.group(2) != "0":
                self.tap.diag("status " + status.group(2))
            self.current = 0
        elif status:
            self.tap.ok(status.group(2) == "0", status.group(1))
        elif text == "done":
            self.done = True
        else:
            self.tap.diag("outer: " + text)


def run_qemu(args, initramfs, log, state):
    process = subprocess.Popen(in_qemu(args, initramfs, log), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    while True:
        select.select([process.stdout], [], [])
        data = os.read(process.stdout.fileno(), 65536)
        state.write(data.decode("utf-8", "replace"))
        if not data:
            return process.wait()


class Messages:
    """The machine in Bochs has one line, for the kernel's messages, and what the commands print is among them: Bochs loses interrupts of its
    serial port when much is written in a row, and the kernel writes its messages without."""

    def __init__(self, state, log):
        self.state, self.log, self.rest = state, open(log, "w", encoding="utf-8"), ""

    def write(self, text):
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            said = re.match(r"\[ *\d+\.\d+\] outer-out: ?(.*)", line.rstrip("\r"))
            if said:
                self.state.line(said.group(1))
            else:
                self.log.write(line + "\n")

    def flush(self):
        self.log.flush()
        self.state.flush()


def run_bochs(args, initramfs, log, state):
    # All that takes time and is not the modules' is off: a poisoned page is 4 KiB of work for each that is freed, messages come slowly.
    words = append(args, "loglevel=5", "slub_debug=FZ mitigations=off nokaslr cryptomgr.notests printk.devkmsg=on outer.kmsg")
    kernel = os.path.join(os.path.realpath(args.build), "guest", "vmlinuz")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    messages = Messages(state, log)
    status = bochs.run(kernel, initramfs, words, args.bochs, args.smp, int(args.memory), timeout=args.timeout, echo=messages)[1]
    messages.flush()
    return status


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--build", default=os.environ.get("TRINE_BUILD") or os.path.join(ROOT, "build"))
    parser.add_argument("--engine", choices=ENGINES, default="amd")
    parser.add_argument("--option", action="append", default=[], metavar="MODULE:NAME=VALUE")
    parser.add_argument("--program", action="append", default=[])
    parser.add_argument("--add", action="append", default=[], metavar="PATH=FILE")
    parser.add_argument("--module", action="append", default=[])
    parser.add_argument("--disk", action="append", default=[])
    parser.add_argument("--again", action="store_true", help="kernel and initramfs are disks too, after those of --disk, for kexec; "
                        "the machine may end with a reset after it said that it is done")
    parser.add_argument("--accel", default="tcg,thread=single")
    parser.add_argument("--cpu", default="max")
    parser.add_argument("--bochs", metavar="MODEL")
    parser.add_argument("--smp", type=int, help="default: 2, in Bochs 1")
    parser.add_argument("--memory", help="default: 2048 MiB, in Bochs 512")
    parser.add_argument("--timeout", type=int, default=300)
    parser.add_argument("--append", default="")
    parser.add_argument("--log")
    parser.add_argument("--qemu", action="append", default=[], metavar="OPTION", help="one more word for QEMU's command line")
    parser.add_argument("command", nargs="*")
    args = parser.parse_args()
    args.smp = args.smp or (1 if args.bochs else 2)
    args.memory = args.memory or ("512" if args.bochs else "2048")

    tap = Tap()
    with tempfile.TemporaryDirectory(prefix="trine-outer-") as scratch:
        log = args.log or os.path.join(scratch, "kernel.log")
        initramfs = build_initramfs(args, scratch)
        began = time.monotonic()
        state = Machine(args, tap)
        ended = (run_bochs if args.bochs else run_qemu)(args, initramfs, log, state)
        if state.rest:
            tap.diag(state.rest)
        # A reset is the end of QEMU, and Bochs says so
        done = state.done and ended in (0, bochs.RESET if args.bochs else 0)
        tap.ok(done, "the machine comes to its end")
        if not done:
            tap.diag("the emulator's status %d after %.0f of %d s" % (ended, time.monotonic() - began, args.timeout))
            tap.diag("\n".join(open(log, encoding="utf-8", errors="replace").read().splitlines()[-40:]))
        trouble = complaints(log)
        tap.ok(not trouble, "the kernel has nothing to complain of")
        tap.diag("\n".join(trouble))
        print("# %.0f seconds" % (time.monotonic() - began), flush=True)
    sys.exit(tap.end())


main()
