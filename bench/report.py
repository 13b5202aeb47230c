"""What the measurements of bench/run come to: medians, ratios, geometric means, as text, as JSON's content and as a chart.

	report = Report(rows)                           # rows: [Row("fib", "recursion", 34), ...], in the order to show
	report.add("lite", "fib", 123456789)            # nanoseconds; one call a round
	report.absent("tcg", "avx512", "no AVX-512")    # the engine does not offer what the row needs
	report.fail("lite", "fib", "no result after 60 s")
	print(report.text())

A figure is the median of a row's times on an engine (the least of them with best=True: on a busy machine that is nearer to the
truth). There are two ratios: lite to native, and TCG to lite; a geometric
mean is over the rows that have the ratio. A row that has failed on an engine has no figure there, whatever else was measured.
"""
import collections
import math
import statistics
import xml.sax.saxutils

ENGINES = ("native", "lite", "tcg")
LABELS = {"native": "native", "lite": "lite", "tcg": "QEMU TCG"}
# A row whose slowest time is so many times its fastest is marked: its median says little.
UNSTEADY = 1.5

Row = collections.namedtuple("Row", "name what count")

# What is to be reached: name, the figure, needed, aimed for.
VECTORS = ("sse2", "avx2", "avx512", "aes", "sha-ni")
GOALS = (
    ("geometric mean, lite to native", lambda r: r.mean("lite", "native"), 2.5, 1.5),
    ("worst row, lite to native", lambda r: r.worst("lite", "native"), 8, 3),
    ("best row of TCG, lite to TCG", lambda r: r.worst("lite", "tcg"), 1, 1),
    ("worst SIMD or crypto row, lite to native", lambda r: r.worst("lite", "native", VECTORS), 1.5, 1.1),
    ("fork+exec, lite to native", lambda r: r.ratio("exec", "lite", "native"), 2, 1),
    ("bare system call, lite to native", lambda r: r.ratio("getppid", "lite", "native"), 4, 2),
    ("boot to init, lite to TCG", lambda r: r.ratio("boot", "lite", "tcg"), 0.8, 0.4),
)


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def figure(value, width=0, digits=3):
    """A number in so many significant digits, without an exponent; "-" for none."""
    if value is None:
        return "-".rjust(width)
    rounded = float("%.*g" % (digits, value))
    places = max(0, digits - 1 - (math.floor(math.log10(rounded)) if rounded > 0 else 0))
    return ("%.*f" % (places, value)).rjust(width)


class Report:
    def __init__(self, rows, engines=ENGINES, best=False):
        self.rows = list(rows)
        self.best = best
        self.engines = [e for e in ENGINES if e in engines]
        self.times = collections.defaultdict(list)
        self.missing = {}
        self.failed = {}

    def add(self, engine, name, nanoseconds):
        self.times[engine, name].append(nanoseconds)

    def absent(self, engine, name, why):
        self.missing[engine, name] = why

    def fail(self, engine, name, why):
        self.failed.setdefault((engine, name), why)

    def median(self, engine, name):
        times = self.times.get((engine, name))
        if not times or (engine, name) in self.failed:
            return None
        return min(times) if self.best else statistics.median(times)

    def spread(self, engine, name):
        """The slowest time over the fastest; None without a figure."""
        times = self.times.get((engine, name))
        return max(times) / min(times) if self.median(engine, name) is not None else None

    def ratio(self, name, engine, other):
        a, b = self.median(engine, name), self.median(other, name)
        return a / b if a is not None and b is not None else None

    def ratios(self, engine, other, names=None):
        found = [(self.ratio(r.name, engine, other), r.name) for r in self.rows if not names or r.name in names]
        return [pair for pair in found if pair[0] is not None]

    def mean(self, engine, other, names=None):
        return geometric_mean(value for value, _ in self.ratios(engine, other, names))

    def worst(self, engine, other, names=None):
        return max((value for value, _ in self.ratios(engine, other, names)), default=None)

    def goals(self):
        """What is to be reached and what was: (name, figure, needed, aimed for, which row) of what was measured."""
        found = []
        for name, value, needed, aimed in GOALS:
            value = value(self)
            if value is None:
                continue
            other = "tcg" if "to TCG" in name else "native"
            where = [n for v, n in self.ratios("lite", other) if v == value]
            found.append((name, value, needed, aimed, where[0] if where else ""))
        return found

    def text(self):
        width = max([len(r.name) for r in self.rows] + [14])
        lines = ["%-*s %s %12s %12s   %s" % (width, "row", " ".join("%11s" % (LABELS[e] + " ms") for e in self.engines),
                                             "lite/native", "TCG/lite", "what")]
        for row in self.rows:
            cells = []
            for engine in self.engines:
                median = self.median(engine, row.name)
                if (engine, row.name) in self.failed:
                    cells.append("%11s" % "FAILED")
                elif median is None:
                    cells.append("%11s" % "-")
                else:
                    mark = "~" if self.spread(engine, row.name) > UNSTEADY else ""
                    cells.append("%11s" % (mark + figure(median / 1e6)))
            lines.append("%-*s %s %s %s   %s" % (width, row.name, " ".join(cells), figure(self.ratio(row.name, "lite", "native"), 12),
                                                 figure(self.ratio(row.name, "tcg", "lite"), 12), row.what))
        lines.append("%-*s %s %s %s" % (width, "geometric mean", " ".join(" " * 11 for _ in self.engines),
                                        figure(self.mean("lite", "native"), 12), figure(self.mean("tcg", "lite"), 12)))
        if any((self.spread(e, r.name) or 0) > UNSTEADY for e in self.engines for r in self.rows):
            lines.append("~: the slowest run took more than %g times what the fastest did" % UNSTEADY)
        for (engine, name), why in self.missing.items():
            if (engine, name) not in self.failed:
                lines.append("%s has no figure for %s: %s" % (LABELS[engine], name, why))
        for (engine, name), why in self.failed.items():
            lines.append("FAILED on %s: %s: %s" % (LABELS[engine], name, why))
        goals = self.goals()
        if goals:
            lines.append("")
            lines.append("%-42s %8s %8s %8s" % ("", "reached", "needed", "aimed"))
            for name, value, needed, aimed, where in goals:
                lines.append("%-42s %s %8g %8g  %s%s" % (name, figure(value, 8), needed, aimed, "" if value <= needed else "missed",
                                                         " (%s)" % where if where else ""))
        return "\n".join(lines) + "\n"

    @classmethod
    def of_content(cls, contents, best=False):
        """The report of earlier measurements' content(), one or several: their times are taken together."""
        rows = {row["name"]: Row(row["name"], row["what"], row["count"]) for c in contents for row in c["rows"]}
        report = cls(rows.values(), [e for e in ENGINES if any(e in row["nanoseconds"] for c in contents for row in c["rows"])], best)
        for row in (row for c in contents for row in c["rows"]):
            if rows[row["name"]].count != row["count"]:
                raise ValueError("%s is not the same work in all" % row["name"])
            for engine, times in row["nanoseconds"].items():
                report.times[engine, row["name"]] += times
            report.missing.update({(engine, row["name"]): why for engine, why in row["absent"].items()})
            for engine, why in row["failed"].items():
                report.fail(engine, row["name"], why)
        return report

    def against(self, before):
        """A table beside the content() of an earlier measurement: lite's figures then and now, what has changed most first."""
        old = {row["name"]: row["median"].get("lite") for row in before["rows"]}
        found = [(old[r.name] / self.median("lite", r.name), r.name) for r in self.rows
                 if old.get(r.name) and self.median("lite", r.name) is not None]
        lines = ["%-14s %11s %11s %9s" % ("lite", "before, ms", "now, ms", "faster by")]
        for factor, name in sorted(found, key=lambda pair: -abs(math.log(pair[0]))):
            lines.append("%-14s %s %s %s" % (name, figure(old[name] / 1e6, 11), figure(self.median("lite", name) / 1e6, 11),
                                             figure(factor, 9)))
        lines.append("%-14s %11s %11s %s" % ("geometric mean", "", "", figure(geometric_mean(f for f, _ in found), 9)))
        return "\n".join(lines) + "\n"

    def content(self):
        """For JSON."""
        rows = []
        for row in self.rows:
            rows.append({
                "name": row.name, "what": row.what, "count": row.count,
                "nanoseconds": {e: self.times[e, row.name] for e in self.engines if (e, row.name) in self.times},
                "median": {e: self.median(e, row.name) for e in self.engines},
                "lite_to_native": self.ratio(row.name, "lite", "native"),
                "tcg_to_lite": self.ratio(row.name, "tcg", "lite"),
                "absent": {e: why for (e, n), why in self.missing.items() if n == row.name},
                "failed": {e: why for (e, n), why in self.failed.items() if n == row.name},
            })
        return {
            "rows": rows,
            "geometric_mean": {"lite_to_native": self.mean("lite", "native"), "tcg_to_lite": self.mean("tcg", "lite"),
                               "tcg_to_native": self.mean("tcg", "native")},
            "goals": [{"name": n, "reached": v, "needed": need, "aimed": aim, "row": where or None}
                      for n, v, need, aim, where in self.goals()],
        }

    def markdown(self):
        """The table for a README."""
        lines = ["| row | native, ms | lite, ms | TCG, ms | lite / native | TCG / lite |", "|---|---|---|---|---|---|"]
        for row in self.rows:
            medians = [self.median(e, row.name) for e in ENGINES]
            lines.append("| %s: %s | %s | %s | %s |" % (
                row.name, row.what, " | ".join("failed" if (e, row.name) in self.failed else figure(m / 1e6 if m else None)
                                               for e, m in zip(ENGINES, medians)),
                figure(self.ratio(row.name, "lite", "native")), figure(self.ratio(row.name, "tcg", "lite"))))
        lines.append("| **geometric mean** | | | | **%s** | **%s** |" % (figure(self.mean("lite", "native")),
                                                                       figure(self.mean("tcg", "lite"))))
        return "\n".join(lines) + "\n"

    def chart(self):
        """An SVG: how many times native's time lite and TCG take, a pair of bars a row, on a logarithmic axis."""
        bars = [(r, self.ratio(r.name, "lite", "native"), self.ratio(r.name, "tcg", "native")) for r in self.rows]
        bars = [bar for bar in bars if bar[1] is not None or bar[2] is not None]
        values = [v for _, lite, tcg in bars for v in (lite, tcg) if v is not None] or [1]
        steps = [factor * 10.0 ** power for power in range(-6, 9) for factor in (1, 2, 5)]
        low = max(s for s in steps if s <= min(values + [1]))
        high = min(s for s in steps if s >= max(values + [10]))
        left, top, step, width, right = 310, 70, 24, 600, 60
        height = top + step * (len(bars) + 1) + 30

        def x(value):
            return left + width * math.log(value / low) / math.log(high / low)

        def text(at, y, content, extra=""):
            return '<text x="%.1f" y="%.1f" %s>%s</text>' % (at, y, extra, xml.sax.saxutils.escape(content))

        out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">' %
               (left + width + right, height),
               '<rect width="100%" height="100%" fill="white"/>',
               text(left, 24, "Time in units of native time, logarithmic: shorter is faster", 'font-size="15"'),
               '<rect x="%d" y="38" width="14" height="10" fill="#2f6db5"/>' % left, text(left + 20, 47, "trine, lite"),
               '<rect x="%d" y="38" width="14" height="10" fill="#d08a3c"/>' % (left + 120),
               text(left + 140, 47, "QEMU, TCG")]
        for tick in steps:
            if low <= tick <= high:
                out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>' %
                           (x(tick), top - 6, x(tick), height - 26, "#555" if tick == 1 else "#ddd"))
                out.append(text(x(tick), height - 10, "%g" % tick, 'text-anchor="middle" fill="#555"'))
        means = (Row("geometric mean", "", 0), self.mean("lite", "native"), self.mean("tcg", "native"))
        for i, (row, lite, tcg) in enumerate(bars + ([means] if bars else [])):
            y = top + i * step
            weight = ' font-weight="bold"' if row.name == "geometric mean" else ""
            label = "%s: %s" % (row.name, row.what) if row.what else row.name
            out.append(text(left - 8, y + 13, label if len(label) < 50 else row.name, 'text-anchor="end"' + weight))
            for offset, value, colour in ((0, lite, "#2f6db5"), (9, tcg, "#d08a3c")):
                if value is None:
                    continue
                a, b = sorted((x(1), x(value)))
                out.append('<rect x="%.1f" y="%d" width="%.1f" height="8" fill="%s"/>' % (a, y + 2 + offset, max(b - a, 1), colour))
                out.append(text(b + 3, y + 9 + offset, figure(value), 'font-size="9" fill="#333"'))
        return "\n".join(out + ["</svg>"]) + "\n"
