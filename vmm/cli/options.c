/*
 * The command line: finding an option's handler, -help, and what is undone at the end. The options
 * themselves stand elsewhere.
 */
#include "vmm/cli.h"
#include "vmm/machine.h"
#include <stdio.h>
#include <stdlib.h>

#define TABLES_MAX 32
#define EXITS_MAX  32

static const struct cli_option *tables[TABLES_MAX];
static unsigned table_count;
static void (*exits[EXITS_MAX])(struct machine *m);
static unsigned exit_count;

void cli_register(const struct cli_option *options)
{
	assert(table_count < TABLES_MAX);
	tables[table_count++] = options;
}

void cli_at_exit(struct machine *m, void (*undo)(struct machine *m))
{
	unsigned i;

	/* A subject may say so at each of its options. */
	for (i = 0; i < exit_count; i++)
		if (exits[i] == undo)
			return;
	assert(exit_count < EXITS_MAX);
	exits[exit_count++] = undo;
}

void cli_run_exits(struct machine *m)
{
	while (exit_count)
		exits[--exit_count](m);
}

static const struct cli_option *find(const char *name)
{
	const struct cli_option *o;
	unsigned i;

	for (i = 0; i < table_count; i++)
		for (o = tables[i]; o->name; o++)
			if (!strcmp(o->name, name))
				return o;
	return NULL;
}

static int compare(const void *a, const void *b)
{
	return strcmp((*(const struct cli_option *const *)a)->name,
		      (*(const struct cli_option *const *)b)->name);
}

void cli_help(void)
{
	const struct cli_option *sorted[256], *o;
	unsigned count = 0, i;
	int n;

	for (i = 0; i < table_count; i++)
		for (o = tables[i]; o->name && count < ARRAY_SIZE(sorted); o++)
			sorted[count++] = o;
	qsort(sorted, count, sizeof(sorted[0]), compare);
	printf("usage: trine -kernel IMAGE [OPTION...]\n\n");
	for (i = 0; i < count; i++) {
		o = sorted[i];
		n = printf("-%s%s%s", o->name, o->argument ? " " : "",
			   o->argument ? o->argument : "");
		printf("%*s%s\n", n < 34 ? 34 - n : (printf("\n"), 34), "", o->help);
	}
	printf("\nOn the terminal: Ctrl-A X ends the machine, Ctrl-A C switches to the monitor, "
	       "Ctrl-A H lists the rest.\n");
}

int cli_parse(struct machine *m, int argc, char **argv, struct error *err)
{
	const struct cli_option *o;
	const char *name, *value;
	int i, r;

	for (i = 1; i < argc; i++) {
		name = argv[i];
		if (name[0] != '-' || !name[1])
			return error_set(err, -EINVAL,
					 "%s: an option is wanted here; -help lists them", name);
		name += name[1] == '-' ? 2 : 1;
		o = find(name);
		if (!o)
			return error_set(err, -EINVAL, "%s: no such option; -help lists them",
					 argv[i]);
		value = NULL;
		if (o->argument) {
			if (i + 1 == argc)
				return error_set(err, -EINVAL, "-%s: wants %s", o->name,
						 o->argument);
			value = argv[++i];
		}
		err->text[0] = 0;
		r = o->handle(m, value, err);
		if (r == CLI_DONE)
			return r;
		if (r < 0 && err->text[0] == '-')
			return r;
		if (r < 0)
			return value ? error_prefix(err, r, "-%s %s", o->name, value)
				     : error_prefix(err, r, "-%s", o->name);
	}
	return 0;
}
