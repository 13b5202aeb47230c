/* lite_options_parse(): what is understood, what is refused and how it is named, and that a refusal changes nothing. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engines/lite/log.h"
#include "tests/tap.h"

static const struct {
	const char *text;
	struct lite_options expect;
} good[] = {
	{ "", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "engine=jit", { LITE_ENGINE_JIT, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "engine=interp", { LITE_ENGINE_INTERP, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "engine=jit,engine=auto", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "lockstep=on", { LITE_ENGINE_AUTO, 1, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "lockstep=off", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "lockstep=0", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "lockstep=1000", { LITE_ENGINE_AUTO, 1000, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "lockstep=4294967295", { LITE_ENGINE_AUTO, 4294967295U, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "windows=off", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_OFF, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "windows=eager", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_EAGER, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "windows=on", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "cache=1", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 1, LITE_VERIFY_DEFAULT } },
	{ "verify=on", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_ON } },
	{ "verify=off", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_OFF } },
	{ "verify=abort", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_ABORT } },
	{ "cache=1024", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 1024, LITE_VERIFY_DEFAULT } },
	{ "log=exits", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, LITE_LOG_EXITS, 24, LITE_VERIFY_DEFAULT } },
	{ "log=in_asm+out_asm+exits", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, LITE_LOG_IN_ASM | LITE_LOG_OUT_ASM | LITE_LOG_EXITS, 24, LITE_VERIFY_DEFAULT } },
	{ "log=exits,log=none", { LITE_ENGINE_AUTO, 0, LITE_WINDOWS_ON, 0, 24, LITE_VERIFY_DEFAULT } },
	{ "engine=jit,lockstep=7,windows=off,cache=64,log=out_asm,", { LITE_ENGINE_JIT, 7, LITE_WINDOWS_OFF, LITE_LOG_OUT_ASM, 64, LITE_VERIFY_DEFAULT } },
};

/* Each begins with something good, which must not be taken either. */
static const struct {
	const char *text, *named;
} bad[] = {
	{ "cache=8,engine=fast", "engine=fast: auto, interp or jit" },
	{ "cache=8,engine=", "engine=: auto" },
	{ "cache=8,engine=jitter", "engine=jitter" },
	{ "cache=8,engine", "engine: name=value is wanted" },
	{ "cache=8,=jit", "=jit: name=value is wanted" },
	{ "windows=off,cache=8,,", "cache=8,: a number of MiB" },
	{ "cache=8,lockstep=maybe", "lockstep=maybe: on, off or a number" },
	{ "cache=8,lockstep=-1", "lockstep=-1" },
	{ "cache=8,lockstep=4294967296", "lockstep=4294967296" },
	{ "cache=8,lockstep=99999999999999999999999", "lockstep=99999999999999999999999" },
	{ "cache=8,lockstep=1x", "lockstep=1x" },
	{ "cache=8,windows=1", "windows=1: off, on or eager" },
	{ "windows=off,cache=0", "cache=0: a number of MiB from 1 to 1024" },
	{ "windows=off,cache=1025", "cache=1025" },
	{ "windows=off,cache=32M", "cache=32M" },
	{ "cache=8,verify=1", "verify=1: off, on or abort" },
	{ "cache=8,log=everything", "log=everything: no such item; there are in_asm, out_asm, exits and none" },
	{ "cache=8,log=exits+", "log=: no such item" },
	{ "cache=8,log=exits+none", "log=none: no such item" },
	{ "cache=8,speed=11", "speed: no such option; there are engine, lockstep" },
	{ "cache=8,Engine=jit", "Engine: no such option" },
	{ "cache=8,logfile=", "logfile=: a file name" },
	{ "cache=8,logfile=/nowhere/at/all", "logfile=/nowhere/at/all: No such file" },
	{ "cache=8,logfile=a,,b/c", "logfile=a,b/c: No such file" },
};

static bool same(const struct lite_options *a, const struct lite_options *b)
{
	return a->engine == b->engine && a->lockstep == b->lockstep && a->windows == b->windows && a->log == b->log &&
	       a->cache_mib == b->cache_mib && a->verify == b->verify;
}

static void files(void)
{
	char name[] = "/tmp/trine-options-XXXXXX", text[256] = "", option[64], error[64];
	int fd = mkstemp(name);
	ssize_t n;

	snprintf(option, sizeof(option), "logfile=%s", name);
	tap_ok(fd >= 0 && !lite_options_parse(option, error, sizeof(error)), "a log file is taken");
	lite_log("%s %u\n", "hello", 42U);
	n = fd >= 0 ? pread(fd, text, sizeof(text) - 1, 0) : 0;
	tap_ok(n == 9 && !strcmp(text, "hello 42\n"), "lite_log() writes to it at once");
	tap_ok(!lite_options_parse("logfile=-", error, sizeof(error)), "- is standard error");
	lite_log("# this is no verdict\n");
	tap_ok(fd >= 0 && pread(fd, text, sizeof(text) - 1, 9) == 0, "and then nothing more comes to the file");
	tap_ok(!lite_options_parse(option, error, sizeof(error)) && pread(fd, text, sizeof(text) - 1, 0) == 0,
	       "given again, it begins anew");
	lite_options_parse("logfile=-", error, sizeof(error));
	close(fd);
	unlink(name);
}

int main(void)
{
	const struct lite_options fresh = lite_options;
	char error[256], tiny[5];

	tap_begin();
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		lite_options = fresh;
		if (!tap_ok(!lite_options_parse(good[i].text, error, sizeof(error)) && same(&lite_options, &good[i].expect),
			    "\"%s\" is understood", good[i].text))
			tap_diag("%s", error);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		int r;

		lite_options = fresh;
		r = lite_options_parse(bad[i].text, error, sizeof(error));
		if (!tap_ok(r < 0 && !strncmp(error, bad[i].named, strlen(bad[i].named)), "\"%s\" is refused: %s", bad[i].text,
			    bad[i].named))
			tap_diag("%d, %s", r, error);
		tap_ok(same(&lite_options, &fresh), "and changes nothing");
	}
	memset(tiny, '!', sizeof(tiny));
	tap_ok(lite_options_parse("engine=x", tiny, 4) < 0 && !strcmp(tiny, "eng") && tiny[4] == '!', "an error is cut to its room");
	tap_ok(lite_options_parse("engine=x", NULL, 0) < 0, "which may be none");
	tap_ok(lite_options_parse("log=everything", tiny, 4) < 0 && !strcmp(tiny, "log") && tiny[4] == '!', "a list in it, too");
	files();
	return tap_end();
}
