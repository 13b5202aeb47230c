#!/usr/bin/env python3
"""What trine is asked for and cannot do: one line that names the value, status 1, nothing left behind."""
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, artifact, scratch  # noqa: E402
from tap import Tap  # noqa: E402


def elf(machine=62, bits=2, size=64):
    """An ELF header and nothing else."""
    head = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9)
    if bits == 2:
        head += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x100000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    else:
        head += struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, 0x100000, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return head[:size]


def make_files(folder):
    with open(artifact("vmlinuz"), "rb") as f:
        kernel = f.read()
    files = {"empty": b"", "text": b"hello\n" * 1000, "cut-setup": kernel[:700], "cut-kernel": kernel[:1 << 20],
             "old-kernel": kernel[:0x206] + b"\x01\x02" + kernel[0x208:],
             "arm.elf": elf(183), "short.elf": elf(size=30), "bare.elf": elf(), "arm32.elf": elf(40, 1)}
    for name, body in files.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(body)
    os.mkdir(os.path.join(folder, "directory"))


KERNEL = ["-kernel", artifact("vmlinuz")]

# What is wrong, the options, and what the line has to name. In options F/ is the scratch folder.
CASES = [
    ("no kernel there", ["-kernel", "F/none"], "F/none"),
    ("an empty kernel", ["-kernel", "F/empty"], "F/empty"),
    ("a kernel that is a text", ["-kernel", "F/text"], "F/text"),
    ("a kernel that is a directory", ["-kernel", "F/directory"], "F/directory"),
    ("a kernel that ends in its header", ["-kernel", "F/cut-setup"], "F/cut-setup"),
    ("a kernel that ends in its code", ["-kernel", "F/cut-kernel"], "F/cut-kernel"),
    ("a kernel of an old boot protocol", ["-kernel", "F/old-kernel"], "F/old-kernel"),
    ("an ELF program for another machine", ["-kernel", "F/arm.elf"], "F/arm.elf"),
    ("a 32-bit ELF program for another machine", ["-kernel", "F/arm32.elf"], "F/arm32.elf"),
    ("an ELF header cut short", ["-kernel", "F/short.elf"], "F/short.elf"),
    ("an ELF program without segments", ["-kernel", "F/bare.elf"], "F/bare.elf"),
    ("no initrd there", KERNEL + ["-initrd", "F/none"], "F/none"),
    ("an initrd that is a directory", KERNEL + ["-initrd", "F/directory"], "F/directory"),
    ("a kernel that does not fit", KERNEL + ["-m", "8M"], "8"),
    ("no memory", KERNEL + ["-m", "0"], "0"),
    ("more memory than there is", KERNEL + ["-m", "12T"], "12T"),
    ("memory that is no number", KERNEL + ["-m", "plenty"], "plenty"),
    ("memory that overflows", KERNEL + ["-m", "99999999999999999999"], "99999999999999999999"),
    ("no CPU", KERNEL + ["-smp", "0"], "0"),
    ("too many CPUs", KERNEL + ["-smp", "100000"], "100000"),
    ("a CPU count that is no number", KERNEL + ["-smp", "two"], "two"),
    ("an unknown option", ["-frobnicate"], "-frobnicate"),
    ("an option without its value", ["-kernel"], "-kernel"),
    ("a word that is no option", ["frobnicate"], "frobnicate"),
    ("an unknown engine", KERNEL + ["-accel", "warp"], "warp"),
    ("an unknown property of an engine", KERNEL + ["-accel", "lite,warp=9"], "warp"),
    ("a property of an engine that has none", KERNEL + ["-accel", "kvm,engine=jit"], "engine"),
    ("a property when the engine is not chosen", KERNEL + ["-accel", "auto,lockstep=on"], "lockstep"),
    ("an unknown way to run code", KERNEL + ["-accel", "lite,engine=steam"], "engine=steam"),
    ("lockstep that is neither switch nor number", KERNEL + ["-accel", "lite,lockstep=often"], "lockstep=often"),
    ("windows that are no switch", KERNEL + ["-accel", "lite,windows=7"], "windows=7"),
    ("no code cache", KERNEL + ["-accel", "lite,cache=0"], "cache=0"),
    ("an unknown item of the log", KERNEL + ["-d", "exits,everything"], "everything"),
    ("a log that the engine has not", KERNEL + ["-accel", "kvm", "-d", "exits"], "kvm"),
    ("a log file that cannot be written", KERNEL + ["-d", "exits", "-D", "F/none/log"], "F/none/log"),
    ("an unknown machine", KERNEL + ["-machine", "pdp11"], "pdp11"),
    ("an unknown CPU model", KERNEL + ["-cpu", "z80"], "z80"),
    ("an unknown device", KERNEL + ["-device", "flux-capacitor"], "flux-capacitor"),
    ("an unknown property", KERNEL + ["-device", "virtio-rng-pci,flux=1"], "flux"),
    ("a property of the wrong kind", KERNEL + ["-device", "virtio-net-pci,mac=here"], "here"),
    ("a device for a drive that is not there", KERNEL + ["-device", "virtio-blk-pci,drive=d9"], "d9"),
    ("a device for a network that is not there", KERNEL + ["-device", "virtio-net-pci,netdev=n9"], "n9"),
    ("no disk image there", KERNEL + ["-drive", "file=F/none,format=raw,if=virtio"], "F/none"),
    ("a disk image that is a directory", KERNEL + ["-drive", "file=F/directory,format=raw,if=virtio"], "F/directory"),
    ("an unknown image format", KERNEL + ["-drive", "file=F/text,format=stone,if=virtio"], "stone"),
    ("an unknown drive property", KERNEL + ["-drive", "file=F/text,format=raw,if=virtio,flux=1"], "flux"),
    ("an unknown network", KERNEL + ["-nic", "carrier-pigeon"], "carrier-pigeon"),
    ("a forwarding rule that is none", KERNEL + ["-nic", "user,hostfwd=nonsense"], "nonsense"),
    ("an unknown character device", KERNEL + ["-chardev", "smoke,id=c"], "smoke"),
    ("an unknown serial port's end", KERNEL + ["-serial", "smoke"], "smoke"),
    ("a file that the serial port cannot write", KERNEL + ["-serial", "file:F/none/log"], "F/none/log"),
    ("an unknown display", KERNEL + ["-display", "hologram"], "hologram"),
]


def main():
    tap = Tap()
    program = os.path.join(BUILD, "trine")
    with scratch() as folder:
        make_files(folder)
        before = sorted(os.listdir(folder))
        for what, options, value in CASES:
            argv = [program, "-display", "none", "-accel", "lite"]
            argv += [o.replace("F/", folder + "/") for o in options]
            try:
                done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
                                      cwd=folder, errors="replace")
                status, out, err = done.returncode, done.stdout, done.stderr
            except subprocess.TimeoutExpired:
                status, out, err = "a time-out", "", ""
            except OSError as e:
                status, out, err = str(e), "", ""
            lines = err.splitlines()
            good = status == 1 and len(lines) == 1 and lines[0].startswith("trine: ") and \
                value.replace("F/", folder + "/") in lines[0] and not out and sorted(os.listdir(folder)) == before
            if not tap.ok(good, "%s: one line with %s, status 1" % (what, value.replace("F/", ""))):
                tap.diag("status %s" % status)
                tap.diag("\n".join((err + out).splitlines()[:6]))
    sys.exit(tap.end())


main()
