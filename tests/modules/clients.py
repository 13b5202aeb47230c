"""Clients of /dev/kvm for the outer machine: trine and Debian's QEMU, each with Debian's kernel as its guest, under the tests that drive
them on the host, too (tests/boot, tests/clients); and Debian's Python for these. outer.py --add takes what files() gives.

The library of Python goes in as byte code that is not checked against its source, as an initramfs keeps no times.
"""
import os
import subprocess

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
PYTHON = "/usr/bin/python3"
# QEMU finds its firmware from where it is itself.
PROGRAMS = ["/usr/bin/python3", "/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-img"]
FIRMWARE = ["/usr/share/seabios/bios-256k.bin"] + ["/usr/share/qemu/" + name for name in (
    "bios-microvm.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin")]

# What the tests import, and what Python looks for by itself when it needs it.
IMPORTED = ("codecs concurrent.futures.thread encodings.ascii encodings.idna encodings.latin_1 encodings.utf_8 fcntl hashlib http.server "
            "json mimetypes os pty random re select shlex signal socket stringprep subprocess sys tempfile termios threading time "
            "traceback")
LIST = """
import importlib, py_compile, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
for name, module in sorted(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if file and file.endswith(".py"):
        print("%sc=%s" % (file, py_compile.compile(file, "%s/%s.pyc" % (sys.argv[1], name), doraise=True,
                                                   invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)))
    elif file:
        print("%s=%s" % (file, file))
"""


def files(build, scratch):
    """["PATH=FILE"]; byte code is made in the directory @scratch. The tests are in /trine, with /trine/build as their build directory."""
    done = subprocess.run([PYTHON, "-I", "-S", "-c", LIST, scratch, *IMPORTED.split()], stdout=subprocess.PIPE, check=True, text=True)
    added = [line.lstrip("/") for line in done.stdout.splitlines()]
    added += ["%s=%s" % (path.lstrip("/"), path) for path in PROGRAMS + FIRMWARE]
    added += ["trine/%s=%s" % (name, os.path.join(ROOT, name)) for name in (
        "tests/guest.py", "tests/tap.py", "tests/boot/boot.py", "tests/clients/qemu.py")]
    added += ["trine/build/" + name + "=" + os.path.join(build, name) for name in ("guest/vmlinuz", "guest/initramfs.cpio")]
    return added
