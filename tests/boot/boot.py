#!/usr/bin/env python3
"""Boots Debian's unmodified kernel in the monitor, to what the subject asks for. See tests/guest.py.

	tests/boot/boot.py runs CPUS     the kernel reaches init, time after time
	tests/boot/boot.py cpus [1,2]    every CPU works, on 1 and on 2
	tests/boot/boot.py devices|disk|http|reboot|terminal|pipe
"""
import concurrent.futures
import hashlib
import http.server
import os
import subprocess
import sys
import termios
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import BUILD, LONG, ROOT, Guest, Lost, report, report_lost, scratch  # noqa: E402
from tap import Tap  # noqa: E402

# A guest that says nothing for so long has hung; a busy host is no failure.
PATIENCE = 240

RANDOM = ["-device", "virtio-rng-pci"]
NETWORK = ["-nic", "user,model=virtio-net-pci"]
CONSOLE = ["-device", "virtio-serial-pci", "-chardev", "null,id=console", "-device", "virtconsole,chardev=console"]


def make_disk(path, mebibytes):
    """A disk that is different everywhere. Returns its checksum."""
    body = b"".join(hashlib.sha256(b"%d" % i).digest() * 128 for i in range(mebibytes * 256))
    with open(path, "wb") as f:
        f.write(body)
    return hashlib.sha256(body).hexdigest()


def runs(tap, cpus):
    """As many at a time as the host has CPUs: a guest that boots is seldom busy on all of its own."""
    cpus = int(cpus)
    count = int(os.environ.get("TRINE_RUNS") or (100 if LONG else 20))

    def one(_):
        guest = Guest(test="hello", cpus=cpus)
        return guest, guest.verdicts(PATIENCE)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for i, (guest, verdicts) in enumerate(pool.map(one, range(count))):
            passed = all(good for good, _ in verdicts)
            tap.ok(passed, "run %d of %d: the kernel reaches init on %d vCPU" % (i + 1, count, cpus))
            if not passed:
                tap.diag("; ".join(name for good, name in verdicts if not good))
                tap.diag("\n".join(guest.text.splitlines()[-40:]))


def cpus(tap, counts="1,2"):
    for count in map(int, counts.split(",")):
        guest = Guest(test="cpus", arg=count, cpus=count)
        report(tap, guest, guest.verdicts(PATIENCE), "%d vCPU: " % count)


def devices(tap):
    with scratch() as folder:
        disk = os.path.join(folder, "disk.img")
        make_disk(disk, 16)
        guest = Guest(*RANDOM, *NETWORK, *CONSOLE, test="devices", cpus=2, disk=disk)
        report(tap, guest, guest.verdicts(PATIENCE))


def disk(tap):
    with scratch() as folder:
        path = os.path.join(folder, "disk.img")
        guest = Guest(test="disk", arg=make_disk(path, 16), cpus=2, disk=path)
        report(tap, guest, guest.verdicts(PATIENCE))
        with open(path, "rb") as f:
            body = f.read()
        tap.ok(len(body) == 16 << 20, "the image has kept its size")
        wrote = hashlib.sha256(body[8 << 20:12 << 20]).hexdigest()
        tap.ok("written: " + wrote in guest.text, "the image holds what the guest wrote")
        rest = b"".join(hashlib.sha256(b"%d" % i).digest() * 128 for i in range(16 * 256))
        tap.ok(body[:8 << 20] == rest[:8 << 20] and body[12 << 20:] == rest[12 << 20:],
               "the rest of the image is untouched")


def http_fetch(tap):
    data = os.urandom(3 << 20)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = {"/data": data, "/sum": hashlib.sha256(data).hexdigest().encode() + b"\n"}.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    guest = Guest(*NETWORK, test="http", arg=server.server_port, cpus=2)
    report(tap, guest, guest.verdicts(PATIENCE))
    server.shutdown()


def reboot(tap):
    for cpus in (1, 2):
        with scratch() as folder:
            path = os.path.join(folder, "disk.img")
            make_disk(path, 16)
            guest = Guest(test="reboot", cpus=cpus, disk=path, reboot=True)
            report(tap, guest, guest.verdicts(PATIENCE), "%d vCPU: " % cpus)
            tap.ok(guest.text.count("the first boot; rebooting") == 1, "%d vCPU: it rebooted once" % cpus)
    guest = Guest("-no-reboot", test="hello", append="trine.end=reboot")
    report(tap, guest, guest.verdicts(PATIENCE), "-no-reboot: ")


def settings(fd):
    return termios.tcgetattr(fd)[:4]


def terminal(tap):
    """A person at a terminal: a prompt, line editing, job control, the keys of the monitor."""
    guest = Guest(cpus=2, terminal=True)
    before = settings(guest.slave)
    try:
        guest.expect(r"trine:.*[#$] ", PATIENCE)
        tap.ok(True, "a prompt comes")
        guest.send("echo a$((40 + 2))b\n")
        guest.expect(r"^a42b", 60)
        tap.ok(True, "the shell answers")
        guest.expect(r"[#$] ", 60)
        guest.send("echo now; sleep 1000\n")
        guest.expect(r"^now", 60)
        # One that comes before the program has the terminal ends nothing.
        for _ in range(60):
            guest.send("\x03")
            if guest.says(r"[#$] ", 1):
                break
        guest.expect(r"[#$] ", 1)
        tap.ok(True, "Ctrl-C goes to the guest and ends its program, not the monitor")
        guest.send("poweroff -f\n")
        tap.ok(guest.wait(60) == 0, "poweroff -f ends the monitor with status 0")
        tap.ok(settings(guest.slave) == before, "the terminal is as it was")
    except Lost as lost:
        report_lost(tap, lost)

    for name, end in (("Ctrl-A X", "keys"), ("SIGTERM", "signal")):
        guest = Guest(terminal=True)
        before = settings(guest.slave)
        try:
            guest.expect(r"trine:.*[#$] ", PATIENCE)
            if end == "keys":
                guest.send("\x01x")
            else:
                guest.process.terminate()
            tap.ok(guest.wait(30) is not None, "%s ends the monitor" % name)
            tap.ok(settings(guest.slave) == before, "after %s the terminal is as it was" % name)
        except Lost as lost:
            report_lost(tap, lost, name + ": ")


def pipe(tap):
    """What `make run` starts, with its input from a pipe: all of it arrives, and the status is the guest's."""
    run = os.path.join(ROOT, "scripts", "run")
    for feed, name in (("uname -a; poweroff -f\n", "one line"),
                       ("echo $((6 * 7))\nfree\nuname -a\npoweroff -f\n", "several lines")):
        source = subprocess.Popen(["printf", "%s", feed], stdout=subprocess.PIPE)
        guest = Guest(argv=[run, BUILD], stdin=source.stdout)
        status = guest.wait(PATIENCE)
        good = tap.ok(status == 0, "pipe: %s: status 0" % name)
        good &= tap.ok("\nLinux (none) 6." in guest.text or "\nLinux trine 6." in guest.text,
                       "pipe: %s: uname answers" % name)
        if not good:
            tap.diag("status %s" % status)
            tap.diag("\n".join(guest.text.splitlines()[-40:]))


SUBJECTS = {"runs": runs, "cpus": cpus, "devices": devices, "disk": disk, "http": http_fetch, "reboot": reboot,
            "terminal": terminal, "pipe": pipe}


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in SUBJECTS:
        sys.exit("usage: boot.py %s [ARGUMENT]" % "|".join(SUBJECTS))
    tap = Tap()
    SUBJECTS[sys.argv[1]](tap, *sys.argv[2:])
    sys.exit(tap.end())


main()
