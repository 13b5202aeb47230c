"""The script tests' verdict printer: the Test Anything Protocol, one verdict a case. tests/tap.h is the same for C.

	tap = Tap()
	tap.ok(1 + 1 == 2, "addition adds")
	sys.exit(tap.end())
"""
import sys


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = 0

    def ok(self, good, name):
        self.count += 1
        self.failed += not good
        print("%sok %d - %s" % ("" if good else "not ", self.count, name.replace("#", "")), flush=True)
        return bool(good)

    def skip(self, why, name):
        self.count += 1
        print("ok %d - %s # SKIP %s" % (self.count, name, why), flush=True)

    def diag(self, text):
        """Comment lines; they belong to the verdict before them."""
        for line in str(text).splitlines():
            print("# " + line, flush=True)

    def end(self):
        print("1..%d" % self.count, flush=True)
        return 1 if self.failed or not self.count else 0
