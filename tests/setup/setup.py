#!/usr/bin/env python3
"""scripts/setup installs what is missing and nothing else, as root or by sudo, and says what to do where it cannot.

dpkg-query, apt-get, sudo and id are stand-ins here, so nothing is installed by the test.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from guest import ROOT, scratch  # noqa: E402
from tap import Tap  # noqa: E402

# $STATE/missing holds the packages that are not installed, $STATE/log what was called.
FAKES = {
    "dpkg-query": """for p in "$@"; do case $p in -*|'$'*) ;; *)
        grep -qxF "$p" "$STATE/missing" || echo "installed $p" ;; esac; done; exit 1""",
    "apt-get": """echo "apt-get $*" >>"$STATE/log"
        case $1 in update) touch "$STATE/updated"; exit 0 ;; esac
        [ -e "$STATE/stale" ] && [ ! -e "$STATE/updated" ] && exit 100
        [ -e "$STATE/broken" ] && exit 100
        cat >"$STATE/stdin"; exit 0""",
    "id": """cat "$STATE/uid" """,
    "sudo": """echo "sudo $*" >>"$STATE/log"; [ -e "$STATE/nosudo" ] && exit 1
        [ "$1" = -n ] && shift; [ "$1" = -v ] && exit 0; exec "$@" """,
}


def run(files, groups=(), uid="0"):
    """Runs setup with @files in $STATE. Returns its status, both outputs, and what was called."""
    with scratch() as folder:
        tools = os.path.join(folder, "bin")
        state = os.path.join(folder, "state")
        os.mkdir(tools)
        os.mkdir(state)
        for name, body in dict(files, uid=uid + "\n", log="").items():
            with open(os.path.join(state, name), "w") as f:
                f.write(body)
        for name, body in FAKES.items():
            path = os.path.join(tools, name)
            with open(path, "w") as f:
                f.write("#!/bin/sh\n" + body + "\n")
            os.chmod(path, 0o755)
        env = dict(os.environ, PATH=tools + ":" + os.environ["PATH"], STATE=state)
        done = subprocess.run([os.path.join(ROOT, "scripts", "setup"), *groups], env=env, input="for the guest\n",
                              capture_output=True, text=True, start_new_session=True, timeout=60)
        with open(os.path.join(state, "log")) as f:
            log = f.read()
        stolen = os.path.join(state, "stdin")
        if os.path.exists(stolen):
            with open(stolen) as f:
                log += f.read()
        return done.returncode, done.stdout, done.stderr, log


def main():
    tap = Tap()
    status, out, err, log = run({"missing": ""})
    tap.ok((status, out, err, log) == (0, "", "", ""), "nothing is missing: nothing is called, nothing said")

    status, out, err, log = run({"missing": "gcc\nseabios\n"})
    installs = [line for line in log.splitlines() if line.startswith("apt-get install")]
    tap.ok(status == 0 and len(installs) == 1 and installs[0].endswith(" gcc seabios"),
           "root: what is missing is installed, once, and nothing else")
    tap.ok("update" not in log, "the package list is not fetched without need")
    tap.ok("for the guest" not in log, "standard input is left alone")

    status, out, err, log = run({"missing": "seabios\n"}, ["build", "libraries"])
    tap.ok(status == 0 and not log, "only the groups that are asked for are looked at")

    status, out, err, log = run({"missing": "gcc\n", "stale": ""})
    tap.ok(status == 0 and "apt-get update" in log, "an outdated package list is fetched anew")

    status, out, err, log = run({"missing": "gcc\n", "broken": ""})
    tap.ok(status == 1 and "gcc" in err.splitlines()[-1], "a failure of apt-get names the packages, status 1")

    status, out, err, log = run({"missing": "gcc\n"}, uid="1000")
    tap.ok(status == 0 and "sudo env" in log and "apt-get install" in log, "not root: through sudo")

    status, out, err, log = run({"missing": "gcc\nmeson\n", "nosudo": ""}, uid="1000")
    tap.ok(status == 1 and "apt-get install" not in log, "neither root nor sudo: status 1, nothing is tried")
    tap.ok(out.splitlines() and out.splitlines()[-1].startswith("apt-get update && apt-get install") and
           out.strip().endswith(" gcc meson"), "neither root nor sudo: the command to run is printed")

    status, out, err, log = run({"missing": ""}, ["nosuchgroup"])
    tap.ok(status == 1 and "nosuchgroup" in err and len(err.splitlines()) == 1, "an unknown group is named, status 1")
    sys.exit(tap.end())


main()
