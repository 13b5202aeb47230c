#!/usr/bin/env python3
"""What bench/run makes of measurements: medians, ratios, means, missing figures, failures, text, JSON and chart."""
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path[:0] = [os.path.join(ROOT, "tests"), os.path.join(ROOT, "bench")]
from guest import scratch  # noqa: E402
from report import ENGINES, Report, Row, figure, geometric_mean  # noqa: E402
from tap import Tap  # noqa: E402

ROWS = [Row("fib", "recursion", 36), Row("getppid", "a bare system call", 100), Row("avx512", "<wide> & \"masked\"", 5),
        Row("exec", "fork and exec", 7), Row("boot", "start to init", 1)]
# Milliseconds, a round each.
TIMES = {
    ("native", "fib"): (10, 30, 20), ("lite", "fib"): (40, 41, 900), ("tcg", "fib"): (82, 82, 82),
    ("native", "getppid"): (10, 10, 10), ("lite", "getppid"): (90, 90, 90), ("tcg", "getppid"): (45, 45, 45),
    ("native", "avx512"): (5, 5, 5), ("lite", "avx512"): (5, 5, 5),
    ("native", "exec"): (10, 10), ("lite", "exec"): (20, 40), ("tcg", "exec"): (60, 60),
    ("lite", "boot"): (1000, 1000, 1000), ("tcg", "boot"): (2000, 2500, 3000),
}


def canned(times=TIMES):
    report = Report(ROWS)
    for (engine, name), values in times.items():
        for value in values:
            report.add(engine, name, value * 1000000)
    report.absent("tcg", "avx512", "no AVX-512")
    return report


def near(value, want):
    return value is not None and abs(value - want) < 1e-9 * want


def figures(tap):
    tap.ok(near(geometric_mean([2, 8]), 4) and near(geometric_mean([5]), 5) and geometric_mean([]) is None,
           "geometric means, of none there is none")
    tap.ok([figure(v) for v in (None, 0.01234, 1, 9.996, 12.34, 1234.6)] == ["-", "0.0123", "1.00", "10.0", "12.3", "1235"],
           "figures have three significant digits and no exponent")
    report = canned()
    tap.ok(report.median("native", "fib") == 20e6 and report.median("lite", "fib") == 41e6, "of three rounds the middle one counts")
    tap.ok(report.median("lite", "exec") == 30e6, "of two rounds the mean")
    tap.ok(near(report.ratio("fib", "lite", "native"), 2.05) and near(report.ratio("fib", "tcg", "lite"), 2), "both ratios")
    tap.ok(report.ratio("boot", "lite", "native") is None and report.ratio("avx512", "tcg", "lite") is None,
           "a ratio with a figure missing is none")
    tap.ok(near(report.mean("lite", "native"), (2.05 * 9 * 1 * 3) ** (1 / 4)), "the mean is over the rows that have the ratio")
    tap.ok(near(report.mean("tcg", "lite"), (2 * 0.5 * 2 * 2.5) ** (1 / 4)), "the other mean, over other rows")
    tap.ok(near(report.worst("lite", "native"), 9), "the worst row")
    best = canned()
    best.best = True
    tap.ok(near(best.ratio("fib", "lite", "native"), 4) and near(best.mean("lite", "native"), (4 * 9 * 1 * 2) ** (1 / 4)),
           "with best=True the least time counts")
    empty = Report(ROWS, ["lite"])
    tap.ok(empty.median("lite", "fib") is None and empty.mean("lite", "native") is None and "geometric mean" in empty.text(),
           "no measurement at all is no figure, not an error")


def failures(tap):
    report = canned()
    report.fail("lite", "fib", "the result is 0x1, not 0x2")
    report.fail("lite", "fib", "a second reason")
    tap.ok(report.median("lite", "fib") is None and report.ratio("fib", "lite", "native") is None,
           "a row that has failed once has no figure, whatever other rounds gave")
    tap.ok(near(report.mean("lite", "native"), (9 * 1 * 3) ** (1 / 3)), "nor is it in the mean")
    text = report.text()
    tap.ok("FAILED on lite: fib: the result is 0x1, not 0x2\n" in text and "a second reason" not in text, "the table says why, once")
    tap.ok(re.search(r"^fib +~?20\.0 +FAILED +82\.0 +- +-", text, re.M), "and shows the engines that have not failed")
    row = report.content()["rows"][0]
    tap.ok(row["failed"] == {"lite": "the result is 0x1, not 0x2"} and row["median"]["lite"] is None, "so does the JSON")


def goals(tap):
    found = {name: (value, where) for name, value, _, _, where in canned().goals()}
    tap.ok(near(found["worst row, lite to native"][0], 9) and found["worst row, lite to native"][1] == "getppid",
           "the worst row is named")
    tap.ok(near(found["best row of TCG, lite to TCG"][0], 2) and found["best row of TCG, lite to TCG"][1] == "getppid",
           "so is the one in which TCG is best")
    tap.ok(near(found["boot to init, lite to TCG"][0], 0.4) and near(found["fork+exec, lite to native"][0], 3) and
           near(found["bare system call, lite to native"][0], 9) and
           near(found["worst SIMD or crypto row, lite to native"][0], 1), "rows that have a goal of their own")
    lines = canned().text().splitlines()
    tap.ok(any(line.startswith("fork+exec") and "missed" in line for line in lines) and
           any(line.startswith("boot to init") and "missed" not in line for line in lines), "what is missed is said")
    tap.ok(not Report(ROWS, ["native"]).goals(), "what was not measured is no goal")


def outputs(tap):
    report = canned()
    text = report.text()
    tap.ok(re.search(r"^fib +~20\.0 +~41\.0 +82\.0 +2\.05 +2\.00 +recursion$", text, re.M),
           "a row of the table, what is unsteady marked")
    tap.ok(re.search(r"^boot +- +1000 +~?2500 +- +2\.50 ", text, re.M), "a row without a native figure")
    tap.ok(re.search(r"^avx512 +5\.00 +5\.00 +- +1\.00 +- ", text, re.M) and "no figure for avx512: no AVX-512" in text,
           "a row without a figure of TCG, and why")
    content = json.loads(json.dumps(report.content()))
    rows = {row["name"]: row for row in content["rows"]}
    tap.ok(list(rows) == [r.name for r in ROWS] and rows["fib"]["nanoseconds"]["lite"] == [40e6, 41e6, 900e6] and
           rows["avx512"]["absent"] == {"tcg": "no AVX-512"} and rows["boot"]["lite_to_native"] is None,
           "JSON has each row, each time, each missing figure")
    tap.ok(near(content["geometric_mean"]["lite_to_native"], report.mean("lite", "native")) and len(content["goals"]) == 7,
           "JSON has means and goals")
    table = report.markdown().splitlines()
    tap.ok(len(table) == 2 + len(ROWS) + 1 and len({line.count("|") for line in table}) == 1, "the README's table is one")

    faster = canned({key: [v / 2 if key == ("lite", "exec") else v for v in values] for key, values in TIMES.items()})
    lines = [line.split() for line in faster.against(content).splitlines()[1:]]
    tap.ok(["exec", "30.0", "15.0", "2.00"] == lines[0] and ["fib", "41.0", "41.0", "1.00"] in lines and
           lines[-1][-1] == figure(2 ** (1 / 5)), "a comparison with an earlier run has what changed most first")

    both = Report.of_content([content, canned({("lite", "fib"): (1, 2)}).content()])
    tap.ok(both.times["lite", "fib"] == [40e6, 41e6, 900e6, 1e6, 2e6] and both.median("lite", "fib") == 40e6 and
           both.engines == list(ENGINES) and both.missing == report.missing, "earlier measurements are taken together")

    space = "{http://www.w3.org/2000/svg}"
    svg = xml.etree.ElementTree.fromstring(report.chart())
    bars = [r for r in svg.iter(space + "rect") if r.get("height") == "8"]
    labels = [t.text for t in svg.iter(space + "text")]
    # lite: fib, getppid, avx512, exec and the mean; TCG: the same without avx512.
    tap.ok(svg.tag == space + "svg" and len(bars) == 9, "the chart is XML and has a bar for each figure")
    tap.ok(any(t.startswith('avx512: <wide> & "masked"') for t in labels) and not any(t.startswith("boot") for t in labels),
           "its labels are quoted; a row without a native figure has none")
    width, height = int(svg.get("width")), int(svg.get("height"))
    tap.ok(all(0 <= float(b.get("x")) and float(b.get("x")) + float(b.get("width")) <= width and
               float(b.get("y")) + 8 <= height for b in bars), "every bar is inside")
    blue = [float(b.get("width")) for b in bars if b.get("fill") == "#2f6db5"]
    tap.ok(blue[1] == max(blue) and blue[2] <= 1, "the slowest row has the longest bar, one at native speed has next to none")
    xml.etree.ElementTree.fromstring(Report(ROWS).chart())
    tap.ok(True, "a chart of nothing is still one")


# A program in the place of the guest's, which says on the console what a guest would, and one that pretends to be a monitor.
SUITE = r"""#!/bin/sh
now() { date +%s%N; }
case $1 in
--list) printf 'good\t5\tworks\nwrong\t5\tanother result\nslow\t5\thangs\nclock\t5\ttime runs slowly\nwide\t5\tneeds AVX-512\nlast\t5\tworks\n'; exit ;;
--serve) echo 1; exec sleep 1000 ;;
esac
while [ $# -gt 1 ]; do
	[ "$1" = --rows ] && rows=$2
	shift
done
for row in $(echo "$rows" | tr , ' '); do
	echo "start $row at $(now)"
	check=0x10
	[ "$row$ENGINE" = wronglite ] && check=0x11
	[ "$row$ENGINE" = slowlite ] && sleep 1000
	if [ "$row$ENGINE" = clocklite ]; then sleep 0.6; echo "row $row 1000 5 0x10 at $(($(now) - 500000000))"; continue; fi
	if [ "$row$ENGINE" = widelite ]; then echo "skip $row at $(now) no AVX-512"; continue; fi
	echo "row $row 2000000 5 $check at $(now)"
done
"""
MONITOR = r"""#!/bin/sh
while [ $# -gt 0 ]; do
	[ "$1" = -append ] && append=$2
	shift
done
echo "bench: init"
export ENGINE=lite
rows=$(echo "$append" | sed 's/.*bench.rows=//')
[ -z "$rows" ] || "${0%/*}/bench/suite" --rows "$rows"
echo "bench: done"
"""


def driver(tap):
    with scratch() as folder:
        build = os.path.join(folder, "build")
        release = "1.0-test"
        boot = os.path.join(build, "guest", "root", "boot")
        for path in (boot, os.path.join(build, "bench"), os.path.join(build, "guest", "root", "lib", "modules", release)):
            os.makedirs(path)
        for path, content in (("bench/suite", SUITE), ("bench/tiny", ""), ("trine", MONITOR), ("guest/vmlinuz", ""),
                              ("guest/kernel-release", release), ("guest/root/boot/config-" + release, "text\n")):
            with open(os.path.join(build, path), "w") as f:
                f.write(content)
            os.chmod(os.path.join(build, path), 0o755)
        # The modules that the initramfs takes; what is in them does not matter here.
        for name in ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "virtio_balloon"):
            with open(os.path.join(build, "guest", "root", "lib", "modules", release, name + ".ko"), "wb") as f:
                f.write(b"\0depends=\0")

        def run(*options):
            done = subprocess.run([os.path.join(ROOT, "bench", "run"), "--build", build, *options], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=200)
            path = os.path.join(build, "bench", "result.json")
            content = {}
            if os.path.exists(path):
                with open(path) as f:
                    content = {row["name"]: row for row in json.load(f)["rows"]}
                os.remove(path)
            return done, content

        done, rows = run("--engines", "native,lite", "--rounds", "2", "--rows", "good,last,boot")
        good = tap.ok(done.returncode == 0 and list(rows) == ["good", "last", "boot"] and
                      len(rows["good"]["nanoseconds"]["lite"]) == 2 and len(rows["boot"]["nanoseconds"]["lite"]) == 2 and
                      "native" not in rows["boot"]["nanoseconds"], "rows, rounds and engines are those asked for; status 0")
        if not good:
            tap.diag(done.stdout + done.stderr)

        done, rows = run("--engines", "native,lite", "--rounds", "1", "--timeout", "1", "--silence", "2")
        reasons = {name: row["failed"].get("lite", "") for name, row in rows.items()}
        good = tap.ok(done.returncode == 1, "a failure is status 1")
        good &= tap.ok("0x11" in reasons["wrong"] and "native has 0x10" in reasons["wrong"], "another result than the native one")
        good &= tap.ok("silent" in reasons["slow"], "a guest that hangs")
        good &= tap.ok("clocks disagree" in reasons["clock"], "a guest whose clock runs slowly")
        good &= tap.ok("AVX-512" in reasons["wide"], "a CPU of lite's that lacks what the host's has")
        good &= tap.ok(not reasons["good"] and not reasons["last"] and rows["last"]["median"]["lite"] == 2e6,
                       "the rows before and after them have their figures")
        if not good:
            tap.diag(done.stdout + done.stderr)

        done, _ = run("--rows", "nosuch")
        tap.ok(done.returncode == 1 and "nosuch" in done.stderr and len(done.stderr.splitlines()) == 1, "an unknown row is named")


def main():
    tap = Tap()
    tap.ok(ENGINES == ("native", "lite", "tcg"), "the engines and their order")
    for part in (figures, failures, goals, outputs, driver):
        part(tap)
    sys.exit(tap.end())


main()
