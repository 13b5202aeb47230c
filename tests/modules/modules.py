#!/usr/bin/env python3
"""Builds the kernel modules and runs one subject's commands on the outer machine (outer.py).

	tests/modules/modules.py api     the API's tests on /dev/kvm
	tests/modules/modules.py apic    that of the local APIC, on one processor
	tests/modules/modules.py life    VMs, CPUs and modules that come and go
	tests/modules/modules.py power   a machine that sleeps, starts another kernel by kexec and is reset, with VMs in it
	tests/modules/modules.py events  trace events and statistics
	tests/modules/modules.py endure  a thousand VMs and reloads, a hundred VMs at once, memory pressure with swap and KSM
	tests/modules/modules.py clients trine and QEMU with Debian's kernel in them; each machine type, chips in and out of the kernel,
	                                 1 and 2 vCPUs, nested and shadow paging, once
	tests/modules/modules.py clients-long     all of these with each other
	tests/modules/modules.py moves   a VM goes from lite to trine-amd and back, through the API
	tests/modules/modules.py moves-debian     the same, Debian's kernel in QEMU
	tests/modules/modules.py vmx     in Bochs: the API's tests, what takes no exits, and Debian's kernel in a guest; EPT and unrestricted guest,
	                                 with enable_apicv and without
	tests/modules/modules.py vmx-restricted   the API's tests and the guest where real mode is emulated, and each access of CR8 exits
	tests/modules/modules.py vmx-shadow       the same without EPT
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bochs  # noqa: E402
import clients  # noqa: E402
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from tap import Tap  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.realpath(os.path.join(HERE, "..", ".."))
BUILD = os.path.realpath(os.environ.get("TRINE_BUILD") or os.path.join(ROOT, "build"))

IN_API = ("system", "memory", "vcpu", "irq", "run", "hyperv", "files", "storm", "oom", "backing")
# What a client's memory may be made of: api-kvm-backing
SOME_HUGE_PAGES = "echo 8 >/proc/sys/vm/nr_hugepages"
TWO_NODES = [word for node in ("node0", "node1") for word in (
    "--qemu=-object", "--qemu=memory-backend-ram,id=%s,size=1G" % node, "--qemu=-numa", "--qemu=node,memdev=" + node)]


def scripts(name):
    """@name.sh and what such scripts share, for outer.py's --add."""
    return ["tests/%s=%s" % (script, os.path.join(HERE, script + ".sh")) for script in (name, "vm")]


SUBJECTS = {
    "api": (["api-kvm-" + name for name in IN_API], [SOME_HUGE_PAGES] + ["api-kvm-" + name for name in IN_API], []),
    "apic": (["api-kvm-apic"], ["api-kvm-apic"], []),
    "life": (["modules/spin", "modules/pressure"], ["life trine-amd"], scripts("life")),
    "power": (["modules/spin", "modules/kexec"], ["power"], scripts("power")),
    "endure": (["api-kvm-memory", "api-kvm-run", "api-kvm-irq", "modules/spin", "modules/pressure"],
               ["endure trine-amd 1000 1800"], scripts("endure")),
    "events": (["api-kvm-run", "api-kvm-irq", "api-kvm-hyperv", "modules/spin"], ["events"], scripts("events")),
}
# Debian's perf and trace-cmd, with what libtraceevent knows of KVM's events
TRACERS = {"tests/perf": "/usr/bin/perf", "tests/trace-cmd": "/usr/bin/trace-cmd",
           "usr/lib/x86_64-linux-gnu/traceevent/plugins/plugin_kvm.so": "/usr/lib/x86_64-linux-gnu/traceevent/plugins/plugin_kvm.so"}
# Linux's own KVM, which the subject "events" loads beside ours
LINUX_KVM = {"irqbypass.ko": "virt/lib", "kvm.ko": "arch/x86/kvm", "kvm-amd.ko": "arch/x86/kvm"}


# What of it all Bochs is asked for: it runs some ten million instructions a second.
BOCHS = {"vmx": bochs.EPT, "vmx-restricted": bochs.NO_UNRESTRICTED, "vmx-shadow": bochs.NO_EPT}
API_IN_BOCHS = ["api-kvm-" + name for name in ("vcpu", "memory", "irq", "apic", "run")]
# trine and QEMU with Debian's kernel.
NPT_OFF = "rmmod trine-amd && insmod /lib/modules/trine-amd.ko npt=0"
APICV_OFF = "rmmod trine-intel && insmod /lib/modules/trine-intel.ko $(cat /etc/options/trine-intel) enable_apicv=0"


def boot(cpus):
    return "TRINE_PROGRAM='trine -accel kvm' python3 /trine/tests/boot/boot.py cpus %s" % cpus


def qemu(machine, chips, cpus, steps=""):
    return ("QEMU_ACCEL=kvm QEMU_CPUS=%d python3 /trine/tests/clients/qemu.py %s %s %s" % (cpus, machine, chips, steps)).strip()


EVERY_CLIENT = [boot("1,2")] + [qemu(machine, chips, cpus) for machine in ("q35", "pc", "microvm") for chips in ("on", "split", "off")
                                for cpus in ((1,) if chips == "off" else (1, 2))]
CLIENTS = {"clients": [boot("1,2"), qemu("q35", "on", 2, "boots,saves,migrates,ends"), qemu("microvm", "split", 1, "boots,ends"),
                       NPT_OFF, boot("2"), qemu("pc", "off", 1, "boots,saves,ends")],
           "clients-long": EVERY_CLIENT + [NPT_OFF] + EVERY_CLIENT}

# What trine asks for its memory, a memfd, and the kernel does not give by itself: a quarter of Bochs's time for a boot goes to pages of 4 KiB.
HUGE_PAGES = "echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled"
BOOT = ("trine -accel kvm -m 128M -kernel /guest/vmlinuz -initrd /guest/initrd -nographic -no-reboot -append "
        "'console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests trine.test=hello'")


def bochs_subject(name):
    """The machine, which has a trine, and Debian's kernel with an initramfs without modules for it: each of them takes ten million instructions."""
    guest = os.path.join(BUILD, "guest")
    initrd = os.path.join(BUILD, "modules", name + ".cpio")
    os.makedirs(os.path.dirname(initrd), exist_ok=True)
    subprocess.check_call([os.path.join(ROOT, "scripts", "mkinitramfs"), guest, "--bare", "-o", initrd])
    # Bochs holds interrupts back from guest code that was entered with IF clear, and is careless with virtual ones: engines/vmx/options.h
    return ["--engine", "intel", "--bochs", BOCHS[name], "--timeout", "1700", "--option", "trine-intel:longest_stay=50000",
            "--option", "trine-intel:imprecise_delivery=1",
            "--program", os.path.join(BUILD, "trine"), "--add", "guest/vmlinuz=" + os.path.join(guest, "vmlinuz"),
            "--add", "guest/initrd=" + initrd]


# What both lite and a processor of QEMU's TCG have. The vendor is given, as QEMU would take the real processor's.
COMMON_CPU = ("qemu64,vendor=AuthenticAMD,+ssse3,+sse4.1,+sse4.2,+popcnt,+xsave,+avx,+avx2,+bmi1,+bmi2,+fma,+movbe,+aes,+rdrand,"
              "+fsgsbase,+smep,kvm-asyncpf=off,kvm-pv-eoi=off,enforce")
NO_BREAKPOINTS = "TRINE_NO_BREAKPOINTS='VMRUN of TCG arms no breakpoints'"


def relay(tap, label, argv, **environment):
    """Runs a test and passes its verdicts on."""
    done = subprocess.run(argv, env=dict(os.environ, **environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    bad = 0
    for line in done.stdout.splitlines():
        verdict = re.match(r"(not )?ok \d+ - (.*?)(?: # SKIP (.*))?$", line)
        if verdict and verdict.group(3):
            tap.skip(verdict.group(3), label + verdict.group(2))
        elif verdict:
            bad += not tap.ok(not verdict.group(1), label + verdict.group(2))
        elif not re.match(r"1\.\.\d+", line):
            tap.diag(line.lstrip("# "))
    if done.returncode and not bad:
        tap.ok(False, "%s: status %d" % (label or argv[0], done.returncode))


def moves(build, debian):
    """A file system with what lite has saved goes into the outer machine, and comes back with what was saved there."""
    tap = Tap()
    api = os.path.join(build, "tests", "api-move")
    test = os.path.join(ROOT, "tests", "clients", "qemu.py")
    with tempfile.TemporaryDirectory(prefix="trine-moves-") as folder:
        there, back, disk = (os.path.join(folder, name) for name in ("there", "back", "disk"))
        os.mkdir(there)
        os.mkdir(back)
        if debian:
            names = ("vm.back", "vm.back.console")
            commands = ["QEMU_CPU=%s %s" % (COMMON_CPU, qemu("q35", "on", 2, "arrives=/mnt/vm,leaves=/mnt/vm.back"))]
            relay(tap, "on lite: ", [test, "q35", "on", "boots,leaves=%s/vm" % there], QEMU_CPU=COMMON_CPU)
        else:
            names = ("back.1", "back.2")
            commands = [NO_BREAKPOINTS + " TRINE_MOVE=/mnt/vm api-kvm-move load", "TRINE_MOVE=/mnt/back api-kvm-move save"]
            relay(tap, "on lite: ", [api, "save"], TRINE_MOVE=there + "/vm")
        subprocess.check_call(["mke2fs", "-q", "-F", "-t", "ext4", "-d", there, disk, "1G"], stdout=subprocess.DEVNULL)
        relay(tap, "on trine-amd: ", outer_machine(build, folder, 1000) + [
            "--disk", disk, "--program", os.path.join(build, "tests", "api-kvm-move"), "mount -t ext4 /dev/vda /mnt",
            *commands, "umount /mnt"])
        for name in names:
            subprocess.run(["debugfs", "-R", "dump %s %s/%s" % (name, back, name), disk], stderr=subprocess.DEVNULL, check=True)
        if debian:
            relay(tap, "back on lite: ", [test, "q35", "on", "arrives=%s/vm.back,cpus,ends" % back], QEMU_CPU=COMMON_CPU)
        else:
            relay(tap, "back on lite: ", [api, "load"], TRINE_MOVE=back + "/back")
    sys.exit(tap.end())


def outer_machine(build, scratch, seconds):
    """outer.py with trine, QEMU and the tests that drive them, on AMD-V. One processor: QEMU's TCG does two worse than one."""
    argv = [os.path.join(HERE, "outer.py"), "--build", build, "--engine", "amd", "--smp", "1", "--timeout",
            str(seconds), "--program", os.path.join(build, "trine")]
    for text in clients.files(build, scratch):
        argv += ["--add", text]
    return argv


def main():
    if sys.argv[1] in BOCHS:
        bochs.require()
        programs, commands, added = API_IN_BOCHS, API_IN_BOCHS + [HUGE_PAGES, BOOT], []
        machine = bochs_subject(sys.argv[1])
        if sys.argv[1] == "vmx":
            programs = API_IN_BOCHS + ["api-kvm-hyperv"]
            commands = programs + ["spared", BOOT, APICV_OFF, "spared", "api-kvm-irq", "api-kvm-apic", HUGE_PAGES, BOOT]
            added = scripts("spared")
        elif sys.argv[1] == "vmx-restricted":
            machine += ["--option", "trine-intel:flexpriority=0"]
            # The last: VMX operation ends with a VM there
            programs, commands, added = programs + ["modules/spin"], commands + ["reset"], scripts("reset")
    elif sys.argv[1] in SUBJECTS:
        programs, commands, added = SUBJECTS[sys.argv[1]]
        machine = ["--engine", "amd", "--timeout", "1100"]
        if sys.argv[1] == "api":
            machine += TWO_NODES
        if sys.argv[1] == "apic":
            # An interrupt that VMRUN injects comes twice when TCG turns to the machine's other processor right then, and these are counted
            machine += ["--smp", "1"]
        if sys.argv[1] in ("life", "power"):
            machine += ["--module", "msr"]
        if sys.argv[1] == "power":
            machine += ["--again", "--module", "virtio_blk"]
        if sys.argv[1] == "endure":
            swap = tempfile.NamedTemporaryFile(prefix="trine-swap-")
            swap.truncate(1 << 30)
            os.set_inheritable(swap.fileno(), True)
            machine = ["--engine", "amd", "--timeout", "14000", "--memory", "768", "--module", "virtio_blk",
                       "--disk", "/proc/%d/fd/%d" % (os.getpid(), swap.fileno())] # which outer.py has still open
    with open(os.path.join(BUILD, "guest", "kernel-release"), encoding="utf-8") as f:
        release = f.read().strip()
    if sys.argv[1] == "events":
        if not all(os.path.exists(path) for path in TRACERS.values()):
            print("1..0 # SKIP perf or trace-cmd is not installed: scripts/setup tests")
            return
        kernel = os.path.join(BUILD, "guest", "root", "lib", "modules", release, "kernel")
        added += ["%s=%s" % pair for pair in TRACERS.items()]
        added += ["linux/%s=%s" % (name, os.path.join(kernel, folder, name)) for name, folder in LINUX_KVM.items()]
    built = subprocess.run([os.path.join(ROOT, "scripts", "modules"), "--tests", "--kernel", "/lib/modules/%s/build" % release,
                            BUILD], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if built.returncode:
        print("not ok 1 - the modules are built for %s" % release)
        print("\n".join("# " + line for line in built.stdout.splitlines()[-30:]))
        print("1..1")
        sys.exit(1)
    if sys.argv[1] in ("moves", "moves-debian"):
        moves(BUILD, sys.argv[1] == "moves-debian")
    if sys.argv[1] in CLIENTS:
        with tempfile.TemporaryDirectory(prefix="trine-clients-") as scratch:
            seconds = 15000 if sys.argv[1] == "clients-long" else 1100
            sys.exit(subprocess.run(outer_machine(BUILD, scratch, seconds) + CLIENTS[sys.argv[1]], check=False).returncode)
    argv = [os.path.join(HERE, "outer.py"), "--build", BUILD, *machine]
    for name in programs:
        argv += ["--program", os.path.join(BUILD, "tests", name)]
    for text in added:
        argv += ["--add", text]
    os.execv(argv[0], argv + commands)


main()
