/*
 * The human monitor: a prompt on a character device (`-monitor stdio`, Ctrl-A C), with commands by
 * QEMU's names.
 *
 *	static const struct monitor_command block_commands[] = {
 *		{ "info block", "", "the drives", info_block },
 *		{}
 *	};
 *	MONITOR_REGISTER(block_commands)
 */
#ifndef VMM_MONITOR_MONITOR_H
#define VMM_MONITOR_MONITOR_H

#include "vmm/util.h"

struct machine;
struct monitor;

struct monitor_command {
	const char *name; /* one or two words */
	const char *arguments, *help;
	/** @arguments is what follows the name, blanks stripped. Main loop, machine lock held. */
	void (*run)(struct monitor *mon, struct machine *m, const char *arguments);
};

/** @commands ends with an empty entry. */
void monitor_register(const struct monitor_command *commands);
#define MONITOR_REGISTER(c)                                         \
	__attribute__((constructor)) static void register_##c(void) \
	{                                                           \
		monitor_register(c);                                \
	}

/** A monitor on chardev @id. */
int monitor_create(struct machine *m, const char *id, struct error *err);
void monitor_destroy_all(struct machine *m);

__attribute__((format(printf, 2, 3))) void monitor_printf(struct monitor *mon, const char *fmt,
							  ...);

#endif
