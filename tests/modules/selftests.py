#!/usr/bin/env python3
"""The KVM selftests of Debian's kernel on Trine's modules, beside Linux's own KVM on the same kind of outer machine (outer.py).

	tests/modules/selftests.py                     the quick ones (make check)
	tests/modules/selftests.py --long              all
	tests/modules/selftests.py --only 'dirty_log_test -M dirty-ring -i 3' ...
	tests/modules/selftests.py --long --table docs/selftests.md    writes the table too, with --only its rows
	tests/modules/selftests.py --bochs --table docs/selftests.md   quick ones on VT-x, in Bochs: one engine after the other

A selftest ends with 0 (pass), 4 (skip) or something else (fail). The verdict of each: what passes on Linux's passes on ours, and what is
run there is not skipped here; NOT_YET names those that are for what Trine does not have yet.

On AMD-V both engines run at the same time, each in a machine of its own. A selftest that does not end takes its machine with it: the rest goes on in
a new one. So does, once, what was running when a machine ended by itself (QEMU's TCG aborts in some nested situations, Linux's KVM or not),
which is said in a diagnostic; what fails is never tried again.
"""
import argparse
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bochs  # noqa: E402
from tap import Tap  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.realpath(os.path.join(HERE, "..", ".."))
BUILD = os.path.realpath(os.environ.get("TRINE_BUILD") or os.path.join(ROOT, "build"))
SELFTESTS = os.path.join(BUILD, "selftests")

# What takes minutes where an exit takes microseconds and a machine is emulated: for --long, and with arguments that make it less
SLOW = {
    "access_tracking_perf_test": [""],
    "demand_paging_test": ["-b 16M"],
    "dirty_log_test": ["-M dirty-log -i 3", "-M clear-log -i 3", "-M dirty-ring -i 3"],
    "dirty_log_perf_test": ["-b 16M -i 2"],
    "hardware_disable_test": [""],
    "kvm_create_max_vcpus": [""],
    "kvm_page_table_test": ["-b 16M"],
    "max_guest_memory_test": ["-m 5 -s 1"],
    "memslot_modification_stress_test": ["-b 4M -i 20"],
    "memslot_perf_test": ["-f 1 -e 1 -s 64 -l 1", "-f 2 -e 4 -s 64 -l 1"],
    "rseq_test": [""],
    "set_memory_region_test": [""],
    "xapic_ipi_test": [""],
    "xapic_state_test": [""],
}
# What is run by --only: the guest has two seconds for what takes an emulated machine about as long (alarm(2): status 142), and how busy the
# host is decides
BY_HAND = {"memslot_perf_test -f 0 -e 0 -s 64 -l 1", "memslot_perf_test -f 5 -e 5 -s 64 -l 1"}
# What the table says besides
REMARKS = {"hardware_disable_test": "32 of its 512 forks, see scripts/selftests; all of them pass on both, by hand",
           **dict.fromkeys(BY_HAND, "by hand: status 142 is that the guest had 2 s, too few when the host has more to do")}
# What --bochs runs: a few minutes of Bochs each at most, and nothing of nested virtualization.
QUICK = ("cpuid_test cr4_cpuid_sync_test get_msr_index_features fix_hypercall_test hyperv_cpuid kvm_pv_test monitor_mwait_test "
         "platform_info_test set_boot_cpu_id set_sregs_test smm_test state_test sync_regs_test userspace_io_test "
         "userspace_msr_exit_test xss_msr_test tsc_msrs_test max_vcpuid_cap_test kvm_binary_stats_test "
         "vmx_exception_with_invalid_guest_state vmx_pmu_caps_test hyperv_clock kvm_clock_test mmio_warning_test").split()
NESTED = "nested virtualization"
NOT_YET = {
    "hyperv_svm_test": NESTED, "nested_exceptions_test": NESTED, "svm_vmcall_test": NESTED, "svm_int_ctl_test": NESTED,
    "svm_nested_shutdown_test": NESTED, "svm_nested_soft_inject_test": NESTED, "triple_fault_event_test": NESTED,
    "sev_migrate_tests": "SEV", "xen_shinfo_test": "Xen", "xen_vmcall_test": "Xen", "pmu_event_filter_test": "PMU",
}


def say(text):
    print("# " + text, flush=True)


def kill_session(leader):
    """Ends @leader's session: the emulator is in a process group of its own."""
    for entry in os.listdir("/proc"):
        try:
            with open("/proc/%s/stat" % entry, encoding="utf-8") as f:
                fields = f.read().rpartition(")")[2].split()
            if entry.isdigit() and int(fields[3]) == leader:
                os.kill(int(entry), signal.SIGKILL)
        except (OSError, IndexError, ValueError):
            pass


def program(name):
    """@name is a program with its arguments."""
    return name.split()[0]


class Engine:
    """One engine's run over @names: status and output of each, in machines one after the other. A machine's second may take two."""

    def __init__(self, name, names, limit, memory, in_bochs):
        self.name, self.left, self.limit, self.memory = name, list(names), limit, memory
        self.in_bochs = in_bochs
        self.result = {}  # name: (status or a word, seconds, lines)
        self.troubles, self.retried, self.machines = [], set(), 0

    def run(self):
        while self.left:
            self.machine()

    def machine(self):
        self.machines += 1
        argv = [os.path.join(HERE, "outer.py"), "--build", BUILD, "--engine", self.name, "--timeout", "7200", "--memory", self.memory,
                # The emulated TSC is a clock, though CPUID does not say so
                "--append", "tsc=reliable",
                "--add", "tests/selftests=" + os.path.join(HERE, "selftests.sh")]
        for name in sorted(set(map(program, self.left))):
            argv += ["--program", os.path.join(SELFTESTS, "bin", name)]
        # pthread_cancel() loads it by itself
        argv += ["--add", "lib/libgcc_s.so.1=" + subprocess.check_output(["gcc", "-print-file-name=libgcc_s.so.1"], text=True).strip()]
        argv.append("selftests %d %s" % (self.limit, " ".join("'%s'" % name for name in self.left)))
        if self.in_bochs:
            argv[1:1] = ["--bochs", bochs.EPT]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                   start_new_session=True)
        lines = queue.Queue()
        threading.Thread(target=self.read, args=(process.stdout, lines), daemon=True).start()
        current, output, tail, ended = None, [], [], False
        # A machine needs a while to come up, and may be alone with a dozen others
        coming = 1800 if self.in_bochs else 300
        deadline = began = time.monotonic() + coming
        while True:
            try:
                line = lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if line is None:
                ended = True
                break
            line = re.sub("^# ", "", line.rstrip())
            tail = tail[-40:] + [line]
            begin = re.fullmatch(r"selftest: begin (.+)", line)
            end = re.fullmatch(r"selftest: end .+ = (\d+)", line)
            if begin:
                current, output, began = begin.group(1), [], time.monotonic()
                deadline = began + 2 * self.limit + 60
            elif end:
                self.result[current] = (int(end.group(1)), time.monotonic() - began, output)
                self.left.remove(current)
                say("%s: %s: %s, %.0f s" % (self.name, current, cell(self.result[current]), self.result[current][1]))
                current, deadline = None, time.monotonic() + coming
            elif current:
                output.append(line.removeprefix("| "))
            elif line.startswith("not ok") and "ends with status 0" not in line:
                self.troubles.append(line)
            elif self.troubles:
                self.troubles.append(line)
        kill_session(process.pid)
        process.wait()
        if not self.left:
            return
        # It was not to its end: whose fault was it?
        if not current:
            self.troubles += ["not ok - a machine of %s runs" % self.name] + tail
            for name in self.left:
                self.result[name] = ("no machine", 0, tail)
            self.left = []
        elif ended and current not in self.retried:
            self.retried.add(current)
            say("%s: the machine died in %s, which is tried again" % (self.name, current))
            for line in tail[-8:]:
                say("\t" + line)
        else:
            self.result[current] = ("machine died" if ended else "hangs", time.monotonic() - began, output)
            self.left.remove(current)

    @staticmethod
    def read(stream, lines):
        for line in stream:
            lines.put(line)
        lines.put(None)


def verdict(result):
    return {0: "pass", 4: "skip"}.get(result[0], "fail")


def reason(result):
    """Of a skip or failure, in a line."""
    status, _, lines = result
    lines = [line.strip() for line in lines if line.strip()]
    if status == 4:
        said = [line for line in lines if re.search(r"skip|[Rr]equire", line)]
        return (said or lines or [""])[-1].removesuffix("# SKIP").replace("1..0 # SKIP - ", "").replace("Requirement not met: ", "wants ")
    if status == 137:
        return "does not end"
    for i, line in enumerate(lines):
        if "Test Assertion Failure" in line:
            where = lines[i + 1] if i + 1 < len(lines) else ""
            return re.sub(r"^.*?(\w+\.c:\d+): ", r"\1: ", where)
    return str(status) if isinstance(status, str) else "status %d" % status


def cell(result):
    return verdict(result) if verdict(result) == "pass" else "%s: %s" % (verdict(result), reason(result).replace("|", "\\|"))


SECTIONS = {
    "AMD-V": "Written by `tests/modules/selftests.py --long --table %s`: those of Debian's linux-source-6.1 %s, on\n"
             "`trine-amd.ko` and on `kvm-amd.ko` of the same kernel, each on a machine of QEMU's TCG with two CPUs.\n",
    "VT-x": "Written by `tests/modules/selftests.py --bochs --table %s`: the quick ones of Debian's linux-source-6.1 %s, without\n"
            "those of nested virtualization, on `trine-intel.ko` and on `kvm-intel.ko` of the same kernel, each on a machine of\n"
            "Bochs (a Skylake-X, one CPU).\n",
}


def table(path, in_bochs, rows, keep):
    """Writes the section of @rows, (name, ours, Linux's, remark); the other section stays, and with @keep the rows that stand there.
    Without it those of BY_HAND."""
    old, section = {}, None
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.startswith("## "):
                    section = line[3:].strip()
                    old[section] = []
                elif section:
                    old[section].append(line)
    mine = "VT-x" if in_bochs else "AMD-V"
    lines = {}
    for line in old.get(mine, []):
        name = line.split("|")[1].strip() if line.startswith("| ") else "selftest"
        if name != "selftest" and (keep or name in BY_HAND):
            lines[name] = line
    lines.update({row[0]: "| %s | %s | %s | %s |\n" % row for row in rows})
    with open(os.path.join(SELFTESTS, "version"), encoding="utf-8") as f:
        version = f.read().strip()
    old[mine] = ["\n", SECTIONS[mine] % (os.path.relpath(path, ROOT), version), "\n", "| selftest | Trine | Linux | |\n|---|---|---|---|\n",
                 *lines.values()]
    with open(path, "w", encoding="utf-8") as f:
        f.write("# The KVM selftests, on Trine's modules and on Linux's own KVM\n\n")
        f.write("\n".join("## %s\n%s\n" % (name, "".join(old[name]).rstrip("\n")) for name in SECTIONS if name in old))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--bochs", action="store_true", help="quick ones on trine-intel and kvm-intel, in Bochs")
    parser.add_argument("--engines", help="default amd,linux; with --bochs intel,linux-intel")
    parser.add_argument("--limit", type=int, help="the machine's seconds for one selftest: default 120, with --long 900, with --bochs 600")
    parser.add_argument("--memory", help="MiB, default 2048, with --bochs 512")
    parser.add_argument("--table")
    args = parser.parse_args()
    limit = args.limit or (600 if args.bochs else 900 if args.long else 120)
    memory = args.memory or ("512" if args.bochs else "2048")
    tap = Tap()

    if not os.path.exists("/usr/src/linux-source-6.1.tar.xz"):
        print("1..0 # SKIP the package linux-source-6.1 is not installed: scripts/setup selftests")
        return
    if args.bochs:
        bochs.require()
    with open(os.path.join(BUILD, "guest", "kernel-release"), encoding="utf-8") as f:
        release = f.read().strip()
    for what, argv in (("the selftests are built", ["selftests", SELFTESTS]),
                       ("the modules are built for " + release, ["modules", "--kernel", "/lib/modules/%s/build" % release, BUILD])):
        argv[0] = os.path.join(ROOT, "scripts", argv[0])
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if not tap.ok(not done.returncode, what):
            tap.diag("\n".join(done.stdout.splitlines()[-30:]))
            sys.exit(tap.end())

    with open(os.path.join(SELFTESTS, "list"), encoding="utf-8") as f:
        words = [line.split() for line in f]
    missing = [w[0] for w in words if len(w) > 1]
    built = [w[0] for w in words if len(w) == 1]
    names = [name for name in built if name not in SLOW]
    if args.long:
        names += [("%s %s" % (name, how)).strip() for name in built for how in SLOW.get(name, [])]
    if args.bochs:
        names = QUICK
    if args.only:
        names = args.only
    engines = [Engine(name, names, limit, memory, args.bochs)
               for name in (args.engines or ("intel,linux-intel" if args.bochs else "amd,linux")).split(",")]
    threads = [threading.Thread(target=engine.run) for engine in engines]
    for thread in threads:
        thread.start()
        # Two of Bochs take as long as one and one
        if args.bochs:
            thread.join()
    for thread in threads:
        thread.join()

    if len(engines) < 2:
        engine = engines[0]
        for name in names:
            tap.ok(verdict(engine.result[name]) != "fail", "%s: %s (%.0f s)" % (name, cell(engine.result[name]), engine.result[name][1]))
            if verdict(engine.result[name]) == "fail":
                tap.diag("\n".join(engine.result[name][2][-30:]))
        tap.diag("\n".join(engine.troubles))
        sys.exit(tap.end())
    ours, linux = engines[0].result, engines[1].result
    for name in names:
        mine, theirs = verdict(ours[name]), verdict(linux[name])
        good = mine == "pass" or theirs == "skip" and mine == "skip" or theirs == "fail" and mine == "fail"
        if not good and program(name) in NOT_YET:
            tap.skip("not yet: " + NOT_YET[program(name)], "%s: not worse than on Linux's" % name)
            good = True
        else:
            tap.ok(good, "%s: not worse than on Linux's" % name)
        tap.diag("ours: %s (%.0f s); Linux's: %s (%.0f s)" % (cell(ours[name]), ours[name][1], cell(linux[name]), linux[name][1]))
        if not good:
            tap.diag("\n".join(ours[name][2][-30:]))
    tap.ok(not engines[0].troubles, "the kernel has nothing to complain of, %d machine(s)" % engines[0].machines)
    tap.diag("\n".join(engines[0].troubles))
    if args.table:
        rows = [(name, cell(ours[name]), cell(linux[name]), "not yet: " + NOT_YET[program(name)] if program(name) in NOT_YET else REMARKS.get(name, ""))
                for name in names]
        if not args.bochs:
            rows += [(name, "cannot be built", "cannot be built", "") for name in missing]
        table(args.table, args.bochs, rows, args.only)
    sys.exit(tap.end())


if __name__ == "__main__":
    main()
