#!/usr/bin/env python3
"""Holds the layers of docs/design.md: who may include whom, and that core compiles and links as kernel code.

	tests/layers/layers.py [COMPILER]

One verdict a folder for the includes, one a file for the build with the kernel's flags, and one for what all of
core together asks of its host.
"""
import os
import re
import shlex
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from tap import Tap  # noqa: E402

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

# A folder, what of the project its files may include, and which system headers.
ABI = r"(linux|asm|asm-generic)/"
ANY = r""
HOST = ["hosts/host.h", "host_types.h"]
RULES = [
    ("core", ["core/", *HOST], ABI),
    ("engines/lite", ["engines/lite/", "core/", "hosts/user/", *HOST], ANY),
    ("engines/vmx", ["engines/vmx/", "core/", *HOST], ABI),
    ("engines/svm", ["engines/svm/", "core/", *HOST], ABI),
    ("hosts/user", ["hosts/user/", *HOST], ANY),
    ("hosts/kernel", ["hosts/kernel/", "host_sizes.h", *HOST], ANY),
    ("hosts/common", HOST, r"$^"),
    ("hosts/host.h", HOST, r"$^"),
    ("libtrine", ["libtrine/", "core/", "engines/lite/", "hosts/user/", *HOST], ANY),
    ("modules", ["modules/", "core/", "engines/vmx/", "engines/svm/", "hosts/kernel/", *HOST], ANY),
    # The preload shim is libtrine's outer skin: it stands in for the C library, so it needs the system calls themselves.
    ("tools", ["tools/", "vmm/block/", "libtrine/", "hosts/user/file.h", "hosts/user/sys.h"], ANY),
    ("vmm", ["vmm/", "libtrine/trine.h"], ANY),
]

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.M)
WORLD = re.compile(r"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b.*\b(?:__KERNEL__|__linux__|linux)\b", re.M)

# The kernel's own code generation flags that change what may be written, and what the module build warns of.
KERNEL_FLAGS = shlex.split(
    "-std=gnu11 -O2 -nostdinc -ffreestanding -fno-strict-aliasing -fno-common -fshort-wchar -mcmodel=kernel "
    "-mno-red-zone -mno-sse -mno-mmx -mno-sse2 -mno-3dnow -mno-avx -mno-80387 -mno-fp-ret-in-387 -m64 "
    "-mpreferred-stack-boundary=3 -fno-pic -fno-pie -fno-asynchronous-unwind-tables -fno-stack-protector "
    "-fno-delete-null-pointer-checks -fcf-protection=none -falign-jumps=1 -Wall -Wextra -Wimplicit-fallthrough "
    "-Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare -Wvla -Wframe-larger-than=2048 -Werror")

# What core may ask of its host when it is linked: the services of host.h, and what the kernel's library has.
HOST_SYMBOL = re.compile(r"host_\w+|mem(cpy|move|set|cmp|chr)|str(len|nlen|cmp|ncmp|chr|rchr)")


def sources(folder, ends=(".c", ".h")):
    path = os.path.join(ROOT, folder)
    if os.path.isfile(path):
        return [folder]
    return sorted(os.path.relpath(os.path.join(where, name), ROOT)
                  for where, _, names in os.walk(path) for name in names if name.endswith(ends))


def text(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        body = f.read()
    return re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), body, flags=re.S)


def offence(path, quoted, system, allowed, headers):
    """Why this include is not allowed, or None."""
    if system:
        inside = re.match(r"(core|engines|hosts|libtrine|vmm|tools|modules)/", system)
        return None if re.match(headers, system) and not inside else "<%s>" % system
    beside = os.path.join(os.path.dirname(path), quoted)
    if os.path.exists(os.path.join(ROOT, beside)):
        quoted = os.path.normpath(beside)
    if re.fullmatch(r"\w+\.hex", quoted):
        return None  # generated beside the file by iasl
    fits = any(quoted == a or (a.endswith("/") and quoted.startswith(a)) for a in allowed)
    return None if fits else '"%s"' % quoted


def check_includes(tap):
    for folder, allowed, headers in RULES:
        files = sources(folder)
        if not files:
            continue
        bad = []
        for path in files:
            for quoted, system in INCLUDE.findall(text(path)):
                why = offence(path, quoted, system, allowed, headers)
                if why:
                    bad.append("%s includes %s" % (path, why))
        tap.ok(not bad, "%s includes only what stands below it (%d files)" % (folder, len(files)))
        tap.diag("\n".join(bad))

    users = [p for p in sources("vmm") if re.search(r'include[ \t]*"libtrine/', text(p))]
    tap.ok(len(users) <= 1, "one file of vmm knows libtrine")
    tap.diag("\n".join(users))

    for folder in ("core", "engines"):
        found = ["%s: %s" % (p, m.strip()) for p in sources(folder) for m in WORLD.findall(text(p))]
        tap.ok(not found, "%s holds 0 conditionals on the world that it is compiled for" % folder)
        tap.diag("\n".join(found))


def check_rules_bite(tap):
    """The rules themselves, on includes that must be refused and ones that must not."""
    for path, quoted, system, good in [
            ("core/a.c", "core/vm.h", "", True), ("core/a.c", "hosts/host.h", "", True),
            ("core/a.c", "", "linux/kvm.h", True), ("core/a.c", "", "stdio.h", False),
            ("core/a.c", "hosts/user/host_types.h", "", False), ("core/a.c", "engines/lite/lite.h", "", False),
            ("core/a.c", "libtrine/trine.h", "", False), ("core/a.c", "", "vmm/x.h", False),
            ("engines/svm/a.c", "engines/vmx/vmx.h", "", False), ("vmm/a.c", "core/vm.h", "", False),
            ("vmm/a.c", "hosts/host.h", "", False), ("tools/a.c", "vmm/net/net.h", "", False)]:
        rule = next(r for r in RULES if path.startswith(r[0] + "/"))
        tap.ok((offence(path, quoted, system, rule[1], rule[2]) is None) == good,
               "%s may %sinclude %s" % (path.split("/a.c")[0], "" if good else "not ", quoted or "<%s>" % system))


def compile_kernel(tap, compiler, folder, flags, scratch):
    """Objects of the folder's sources, those that compile."""
    objects = []
    for path in sources(folder, (".c",)):
        output = os.path.join(scratch, path.replace("/", "-")[:-2] + ".o")
        done = subprocess.run([compiler, *flags, "-c", path, "-o", output], cwd=ROOT, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        if tap.ok(done.returncode == 0, "%s compiles with the kernel's flags" % path):
            objects.append(output)
        tap.diag("\n".join(done.stdout.splitlines()[:20]))
    return objects


def check_linked(tap, name, objects, count, scratch):
    """What these objects leave undefined together."""
    whole = os.path.join(scratch, name.replace("/", "-") + "-whole.o")
    done = subprocess.run(["ld", "-r", "-o", whole, *objects], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    linked = tap.ok(len(objects) == count and done.returncode == 0, "all of %s links as one object" % name)
    tap.diag(done.stdout)
    wanted = subprocess.check_output(["nm", "-u", whole], text=True).split() if linked else []
    strange = sorted({s for s in wanted if s != "U" and not HOST_SYMBOL.fullmatch(s)})
    tap.ok(linked and not strange, "%s asks its host for nothing but hosts/host.h and mem*/str*" % name)
    tap.diag(" ".join(strange))


def check_kernel_build(tap, compiler):
    files = sources("core", (".c",))
    if not files:
        tap.skip("core has no sources yet", "core compiles with the kernel's flags")
        return
    own = subprocess.check_output([compiler, "-print-file-name=include"], text=True).strip()
    triplet = subprocess.check_output([compiler, "-dumpmachine"], text=True).strip()
    with tempfile.TemporaryDirectory(prefix="trine-layers-") as scratch:
        # Only the kernel's ABI headers, not the rest of /usr/include.
        os.mkdir(os.path.join(scratch, "include"))
        for name, candidates in (("linux", ["/usr/include/linux"]), ("asm-generic", ["/usr/include/asm-generic"]),
                                 ("asm", ["/usr/include/%s/asm" % triplet, "/usr/include/x86_64-linux-gnu/asm"])):
            target = next(c for c in candidates if os.path.isdir(c))
            os.symlink(target, os.path.join(scratch, "include", name))
        # As the modules' build has it, where the sizes of Linux's structures are counted.
        with open(os.path.join(scratch, "include", "host_sizes.h"), "w", encoding="utf-8") as f:
            for name in ("MUTEX", "SPINLOCK", "RWLOCK", "WAIT", "TIMER", "SCHED", "MM_WATCH", "SHRINKER"):
                f.write("#define HOST_%s_WORDS 16\n" % name)
            f.write("#define HOST_EX_TYPE 1\n")
        flags = KERNEL_FLAGS + ["-isystem", own, "-isystem", os.path.join(scratch, "include"), "-I", ROOT,
                                "-I", os.path.join(ROOT, "hosts", "kernel")]
        core = compile_kernel(tap, compiler, "core", flags, scratch)
        check_linked(tap, "core", core, len(files), scratch)
        for engine in ("engines/svm", "engines/vmx"):
            own_files = sources(engine, (".c",))
            if own_files:
                objects = compile_kernel(tap, compiler, engine, flags, scratch)
                check_linked(tap, "core with " + engine, core + objects, len(files) + len(own_files), scratch)


def main():
    tap = Tap()
    check_rules_bite(tap)
    check_includes(tap)
    check_kernel_build(tap, sys.argv[1] if len(sys.argv) > 1 else "gcc")
    sys.exit(tap.end())


main()
