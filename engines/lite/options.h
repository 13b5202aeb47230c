/*
 * What the user can choose about the lite engine; one set for the process.
 *
 *	char error[128];
 *
 *	if (lite_options_parse("engine=jit,lockstep=on,log=exits", error, sizeof(error)))
 *		complain(error);
 *
 * engine, lockstep, windows and cache hold for the VMs that are made afterwards, verify, log and logfile at once.
 */
#ifndef ENGINES_LITE_OPTIONS_H
#define ENGINES_LITE_OPTIONS_H

#include "hosts/host.h"

/* Bits of lite_options.log, by their names in log=. */
#define LITE_LOG_IN_ASM	 1U /* in_asm: guest code that is being translated */
#define LITE_LOG_OUT_ASM 2U /* out_asm: what became of it */
#define LITE_LOG_EXITS	 4U /* exits: each return from guest code */

#define LITE_CACHE_MIB_MIN 1U
#define LITE_CACHE_MIB_MAX 1024U

enum { LITE_VERIFY_OFF, LITE_VERIFY_ON, LITE_VERIFY_ABORT };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
#define LITE_VERIFY_DEFAULT LITE_VERIFY_ABORT
#else
#define LITE_VERIFY_DEFAULT LITE_VERIFY_OFF
#endif

enum { LITE_ENGINE_AUTO, LITE_ENGINE_INTERP, LITE_ENGINE_JIT };
enum { LITE_WINDOWS_OFF, LITE_WINDOWS_ON, LITE_WINDOWS_EAGER };

struct lite_options {
	u32 engine;    /* LITE_ENGINE_* */
	u32 lockstep;  /* 0: off; N: the interpreter checks every Nth block */
	u32 windows;   /* LITE_WINDOWS_*: guest pages may be mapped at a fixed distance, see window.h */
	u32 log;       /* (a) LITE_LOG_* */
	u32 cache_mib; /* translated code, at most; then all of it is thrown away */
	u32 verify;    /* LITE_VERIFY_*: emitted code is checked before it runs, see jit_verify.c */
};

extern struct lite_options lite_options;

/**
 * Takes "name=value,name=value..." into lite_options; ",," in a value stands for a comma:
 *
 *	engine=auto|interp|jit	lockstep=on|off|N	cache=MIB
 *	windows=on|off|eager (eager: every address space has one at once; for tests)
 *	verify=on|off|abort (on: what is wrong is not run; abort: it is the end; that is the default of sanitizer and debug builds)
 *	log=ITEM+ITEM...|none	logfile=PATH (written anew; "-" is standard error)
 *
 * 0, or -errno with a text that names the value in @error (@size bytes); then nothing has changed.
 */
int lite_options_parse(const char *text, char *error, size_t size);
/** The items of log=, as bit, name and meaning; ends with a name that is NULL. */
extern const struct lite_log_item {
	u32 bit;
	const char *name, *help;
} lite_log_items[];

#endif
