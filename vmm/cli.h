/*
 * Command-line options register themselves, so that a subject's options stand with the subject.
 *
 *	static int drive_option(struct machine *m, const char *value, struct error *err) { ... }
 *
 *	static const struct cli_option drive_options[] = {
 *		{ "drive", "file=PATH,format=raw,if=virtio", "a disk", drive_option },
 *		{}
 *	};
 *	CLI_REGISTER(drive_options)
 *
 * Options are handled in the order in which they stand, before the machine is built: back ends may
 * be opened at once, devices are put off with device_queue(). A failure's text need not name the
 * option: main() prints "trine: -drive VALUE: text" unless the text begins with '-'. To stop with
 * status 0 after printing help, return CLI_DONE.
 */
#ifndef VMM_CLI_H
#define VMM_CLI_H

#include "vmm/util.h"

struct machine;

#define CLI_DONE 1

struct cli_option {
	const char *name;     /* without the dash */
	const char *argument; /* for -help; NULL: the option takes none */
	const char *help;
	int (*handle)(struct machine *m, const char *value, struct error *err);
};

/** @options ends with an empty entry. */
void cli_register(const struct cli_option *options);
#define CLI_REGISTER(o)                                             \
	__attribute__((constructor)) static void register_##o(void) \
	{                                                           \
		cli_register(o);                                    \
	}

/*
 * What is undone at the end, before the machine goes: closing images and networks. Called in
 * reverse order.
 */
void cli_at_exit(struct machine *m, void (*undo)(struct machine *m));
/** Prints all options. */
void cli_help(void);
/** Calls the undoing functions; by machine_destroy(). */
void cli_run_exits(struct machine *m);

/**
 * Takes the whole command line into @m: 0, CLI_DONE (something was printed that was asked for), or
 * a negative errno with a text that names the option.
 */
int cli_parse(struct machine *m, int argc, char **argv, struct error *err);

#endif
