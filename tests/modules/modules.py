#!/usr/bin/env python3
"""Builds the kernel modules and runs one subject's commands on the outer machine (outer.py).

	tests/modules/modules.py api     the API's tests on /dev/kvm
	tests/modules/modules.py life    VMs, CPUs and modules that come and go
	tests/modules/modules.py events  trace events and statistics
	tests/modules/modules.py endure  a thousand VMs and reloads, a hundred VMs at once, memory pressure with swap and KSM
	tests/modules/modules.py vmx     in Bochs: the API's tests, and Debian's kernel in a guest; EPT and unrestricted guest
	tests/modules/modules.py vmx-restricted   the same where real mode is emulated
	tests/modules/modules.py vmx-shadow       the same without EPT
"""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bochs  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.realpath(os.path.join(HERE, "..", ".."))
BUILD = os.path.realpath(os.environ.get("TRINE_BUILD") or os.path.join(ROOT, "build"))

SUBJECTS = {
    "api": (["api-kvm-" + name for name in ("system", "memory", "vcpu", "irq", "run", "files", "storm", "oom")],
            ["api-kvm-system", "api-kvm-memory", "api-kvm-vcpu", "api-kvm-irq", "api-kvm-run", "api-kvm-files", "api-kvm-storm", "api-kvm-oom"], []),
    "life": (["modules/spin", "modules/pressure"], ["life trine-amd"], ["tests/life=" + os.path.join(HERE, "life.sh")]),
    "endure": (["api-kvm-memory", "api-kvm-run", "api-kvm-irq", "modules/spin", "modules/pressure"],
               ["endure trine-amd 1000 1800"], ["tests/endure=" + os.path.join(HERE, "endure.sh")]),
    "events": (["api-kvm-run", "modules/spin"], ["events"], ["tests/events=" + os.path.join(HERE, "events.sh")]),
}


# What of it all Bochs is asked for: it runs some ten million instructions a second.
BOCHS = {"vmx": bochs.EPT, "vmx-restricted": bochs.NO_UNRESTRICTED, "vmx-shadow": bochs.NO_EPT}
API_IN_BOCHS = ["api-kvm-" + name for name in ("vcpu", "memory", "irq", "run")]
BOOT = ("trine -accel kvm -m 128M -kernel /guest/vmlinuz -initrd /guest/initrd -nographic -no-reboot -append "
        "'console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests trine.test=hello'")


def bochs_subject(model):
    guest = os.path.join(BUILD, "guest")
    # Bochs holds interrupts back from guest code that was entered with IF clear.
    return ["--engine", "intel", "--bochs", model, "--timeout", "3400", "--option", "trine-intel:longest_stay=10000",
            "--program", os.path.join(BUILD, "trine"), "--add", "guest/vmlinuz=" + os.path.join(guest, "vmlinuz"),
            "--add", "guest/initrd=" + os.path.join(guest, "initramfs.cpio")]


def main():
    if sys.argv[1] in BOCHS:
        if not shutil.which("bochs") or not shutil.which("grub-mkrescue"):
            print("1..0 # SKIP no Bochs here: install what bochs.py names")
            return
        programs, commands, added = API_IN_BOCHS, API_IN_BOCHS + [BOOT], []
        machine = bochs_subject(BOCHS[sys.argv[1]])
    else:
        programs, commands, added = SUBJECTS[sys.argv[1]]
        machine = ["--engine", "amd", "--timeout", "1100"]
        if sys.argv[1] == "endure":
            swap = tempfile.NamedTemporaryFile(prefix="trine-swap-")
            swap.truncate(1 << 30)
            os.set_inheritable(swap.fileno(), True)
            machine = ["--engine", "amd", "--timeout", "14000", "--memory", "768", "--module", "virtio_blk",
                       "--disk", "/dev/fd/%d" % swap.fileno()]
    with open(os.path.join(BUILD, "guest", "kernel-release"), encoding="utf-8") as f:
        release = f.read().strip()
    built = subprocess.run([os.path.join(ROOT, "scripts", "modules"), "--tests", "--kernel", "/lib/modules/%s/build" % release,
                            BUILD], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if built.returncode:
        print("not ok 1 - the modules are built for %s" % release)
        print("\n".join("# " + line for line in built.stdout.splitlines()[-30:]))
        print("1..1")
        sys.exit(1)
    argv = [os.path.join(HERE, "outer.py"), "--build", BUILD, *machine]
    for name in programs:
        argv += ["--program", os.path.join(BUILD, "tests", name)]
    for text in added:
        argv += ["--add", text]
    os.execv(argv[0], argv + commands)


main()
