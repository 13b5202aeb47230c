#!/usr/bin/env python3
"""The guest's vector registers stay loaded while core, engines/lite and hosts/user run, so no code of theirs uses any,
and what they call of the C library uses none either, or is called with the registers put away (hosts/user/general.h).

	tests/layers/vectors.py LIBRARY...

One verdict a library for its instructions, one for the memory functions, one for everything else that it asks of others.
"""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from tap import Tap  # noqa: E402

# An instruction with an operand in a vector, mask or x87 register. (XSAVE and XRSTOR have none.)
VECTOR = re.compile(r"%(?:[xyz]mm\d|mm[0-7]|st\b|k[0-7])")

# Functions of the C library and libgcc that use no vector registers on the ways that are taken here: system calls and thin
# wrappers of them, locks that are not robust, a clock read from the vDSO, jumps that leave the signal mask alone.
GENERAL = set("""
    syscall close read write ioctl mmap mmap64 munmap mprotect madvise fcntl fcntl64 poll preadv2 preadv64v2 readlink fstat64 ftruncate64 memfd_create
    timerfd_create timerfd_settime epoll_create1 epoll_ctl epoll_wait getpid sched_yield nanosleep clock_gettime
    pthread_mutex_lock pthread_mutex_unlock pthread_mutex_destroy pthread_cond_wait pthread_cond_broadcast pthread_self
    __sigsetjmp siglongjmp __errno_location __popcountdi2 __tls_get_addr _GLOBAL_OFFSET_TABLE_
    __start_lite_fast __stop_lite_fast __start_trine_ex_table __stop_trine_ex_table""".split())

# Others, and the objects that may call them: under HOST_KEEP_VECTORS, or where no guest runs.
KEPT = {
    "calloc": {"mem.c", "file.c", "service.c"}, "free": {"mem.c", "file.c", "pages.c", "service.c"}, "aligned_alloc": {"pages.c"},
    **{"pthread_rwlock_" + name: {"pages.c"} for name in ("init", "destroy", "rdlock", "wrlock", "unlock")},
    "vsnprintf": {"log.c"}, "getenv": {"log.c"}, "strcmp": {"log.c", "options.c"},
    "strcspn": {"options.c"}, "strlen": {"options.c"}, "strerror": {"options.c"},
    "snprintf": {"file.c", "service.c"}, "fopen64": {"service.c", "time.c"}, "fclose": {"service.c", "time.c"},
    "fgets": {"service.c", "time.c"}, "__isoc99_sscanf": {"service.c", "time.c"}, "strstr": {"service.c", "time.c"},
    "pthread_once": {"fault.c", "file.c", "lite.c", "lockstep.c", "log.c", "service.c", "signals.c", "stub_room.c", "time.c"},
    "pthread_atfork": {"file.c", "log.c", "service.c"}, "pthread_mutex_init": {"file.c", "lock.c", "pages.c", "service.c"},
    "pthread_cond_init": {"service.c"}, "pthread_create": {"service.c"}, "pthread_setname_np": {"service.c"},
    "pthread_attr_init": {"service.c"}, "pthread_attr_destroy": {"service.c"}, "pthread_attr_setstacksize": {"service.c"},
    "pthread_attr_setdetachstate": {"service.c"},
    "getauxval": {"window.c"},
    "sigaddset": {"signals.c"}, "sigemptyset": {"signals.c"}, "__sigaction": {"signals.c"},
}


def run(*args):
    return subprocess.run(args, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def vector_code(library):
    """[(function, instruction)] and how many instructions there are."""
    found, function, total = [], "", 0
    for line in run("objdump", "-d", "--no-show-raw-insn", library).splitlines():
        if line.endswith(">:"):
            function = line.split("<")[1][:-2]
        elif line.startswith(" ") and ":" in line:
            total += 1
            if VECTOR.search(line):
                found.append("%s: %s" % (function, line.split(":", 1)[1].strip()))
    return found, total


def wanted(library):
    """[(source file, symbol)] that objects of the library leave undefined, and the set of what it defines."""
    undefined, defined = [], set()
    for line in run("nm", "-A", library).splitlines():
        where, rest = line.rsplit(":", 1)
        member = re.sub(r"\.o$", "", re.split(r"[:/\[]", where.rstrip("]"))[-1])
        member = member.split(".p_")[-1]
        fields = rest.split()
        if fields[-2] in ("U", "w"):
            undefined.append((member, fields[-1]))
        else:
            defined.add(fields[-1])
    return undefined, defined


def main():
    tap = Tap()
    # The pattern itself.
    for text, is_vector in (("movups %xmm0,(%rdi)", True), ("vpxorq %zmm17,%zmm1,%zmm1", True), ("fld %st(1)", True),
                            ("kmovq %k1,%rax", True), ("paddb %mm1,%mm2", True), ("mov %rax,%rbx", False),
                            ("xsave64 0x40(%rsp)", False), ("rep movsb %ds:(%rsi),%es:(%rdi)", False)):
        tap.ok(bool(VECTOR.search(text)) == is_vector, "%s is %sa vector instruction" % (text, "" if is_vector else "not "))
    libraries, ours, undefined = sys.argv[1:], set(), {}
    for library in libraries:
        undefined[library], defined = wanted(library)
        ours |= defined
    for library in libraries:
        name = os.path.basename(library)
        found, total = vector_code(library)
        tap.ok(total > 100 and not found, "%s: no vector instruction among %d" % (name, total))
        tap.diag("\n".join(found[:20]))
        outside = [(m, s) for m, s in undefined[library] if s not in ours]
        memory = ["%s calls %s" % (m, s) for m, s in outside if re.fullmatch(r"mem(cpy|set|move|cmp|pcpy|chr)|bcmp|bzero", s)]
        tap.ok(not memory, "%s: the memory functions are our own" % name)
        tap.diag("\n".join(memory))
        strange = ["%s calls %s" % (m, s) for m, s in outside if s not in GENERAL and m not in KEPT.get(s, ())]
        tap.ok(not strange, "%s: calls of others are known to leave the registers alone" % name)
        tap.diag("\n".join(strange))
    sys.exit(tap.end())


main()
