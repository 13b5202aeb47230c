/*
 * The human monitor: line editing, finding commands, printing. The commands themselves are in
 * commands.c.
 */
#include "vmm/monitor/monitor.h"
#include "vmm/chardev.h"
#include "vmm/machine.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LINE	   512
#define TABLES_MAX 16
#define OUTPUT_MAX (1 * MiB)
#define PROMPT	   "(trine) "

struct monitor {
	struct machine *machine;
	struct chardev_front front;
	char line[LINE], last[LINE];
	unsigned length;
	bool greeted, focus;
	unsigned escape; /* in a sequence of the cursor keys, how far */
	u8 *output;	 /* what the back end could not take yet */
	size_t output_size;
	struct list link;
};

static const struct monitor_command *tables[TABLES_MAX];
static unsigned table_count;

void monitor_register(const struct monitor_command *commands)
{
	assert(table_count < TABLES_MAX);
	tables[table_count++] = commands;
}

static void flush(struct monitor *mon)
{
	size_t n;

	if (!mon->output_size)
		return;
	n = chardev_write(&mon->front, mon->output, mon->output_size);
	memmove(mon->output, mon->output + n, mon->output_size - n);
	mon->output_size -= n;
}

static void emit(struct monitor *mon, const char *text, size_t size)
{
	u8 *more;

	if (!size || mon->output_size + size > OUTPUT_MAX)
		return; /* nobody reads */
	more = realloc(mon->output, mon->output_size + size);
	if (!more)
		return;
	mon->output = more;
	memcpy(mon->output + mon->output_size, text, size);
	mon->output_size += size;
	flush(mon);
}

void monitor_printf(struct monitor *mon, const char *fmt, ...)
{
	char *text, *line, *newline;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	for (line = text; (newline = strchr(line, '\n')); line = newline + 1) {
		emit(mon, line, newline - line);
		emit(mon, "\r\n", 2);
	}
	emit(mon, line, strlen(line));
	free(text);
}

static void help(struct monitor *mon)
{
	const struct monitor_command *c;
	unsigned i;

	for (i = 0; i < table_count; i++)
		for (c = tables[i]; c->name; c++)
			monitor_printf(mon, "%s%s%s -- %s\n", c->name, *c->arguments ? " " : "",
				       c->arguments, c->help);
	monitor_printf(mon, "help -- this list\n");
}

/* The arguments, if @line is that command: its words, then a blank or the end. */
static const char *match(const char *line, const char *name)
{
	while (*name) {
		if (*name == ' ') {
			if (!isspace((unsigned char)*line))
				return NULL;
			while (isspace((unsigned char)*line))
				line++;
			name++;
		} else if (*line++ != *name++) {
			return NULL;
		}
	}
	if (*line && !isspace((unsigned char)*line))
		return NULL;
	while (isspace((unsigned char)*line))
		line++;
	return line;
}

static void run(struct monitor *mon, char *line)
{
	const struct monitor_command *c;
	const char *arguments;
	size_t n;
	unsigned i;

	while (isspace((unsigned char)*line))
		line++;
	for (n = strlen(line); n && isspace((unsigned char)line[n - 1]); n--)
		line[n - 1] = 0;
	if (!*line)
		return;
	if (!strcmp(line, "help") || !strcmp(line, "?")) {
		help(mon);
		return;
	}
	for (i = 0; i < table_count; i++) {
		for (c = tables[i]; c->name; c++) {
			arguments = match(line, c->name);
			if (arguments) {
				c->run(mon, mon->machine, arguments);
				return;
			}
		}
	}
	monitor_printf(mon, "%s: no such command; help lists them\n", line);
}

static void erase_line(struct monitor *mon)
{
	while (mon->length) {
		mon->length--;
		emit(mon, "\b \b", 3);
	}
}

static void enter(struct monitor *mon)
{
	char line[LINE];

	emit(mon, "\r\n", 2);
	memcpy(line, mon->line, mon->length);
	line[mon->length] = 0;
	if (mon->length)
		memcpy(mon->last, line, mon->length + 1);
	mon->length = 0;
	run(mon, line);
	monitor_printf(mon, PROMPT);
}

/* Cursor up brings the last line back; the other cursor keys do nothing. */
static bool escape_sequence(struct monitor *mon, u8 byte)
{
	if (byte == 0x1b) {
		mon->escape = 1;
		return true;
	}
	if (mon->escape == 1 && (byte == '[' || byte == 'O')) {
		mon->escape = 2;
		return true;
	}
	if (mon->escape != 2) {
		mon->escape = 0;
		return false;
	}
	mon->escape = 0;
	if (byte == 'A') {
		erase_line(mon);
		mon->length = strlen(mon->last);
		memcpy(mon->line, mon->last, mon->length);
		emit(mon, mon->line, mon->length);
	}
	return true;
}

static void key(struct monitor *mon, u8 byte)
{
	if (escape_sequence(mon, byte))
		return;
	switch (byte) {
	case '\r':
	case '\n': enter(mon); break;
	case 0x7f:
	case '\b':
		if (mon->length) {
			mon->length--;
			emit(mon, "\b \b", 3);
		}
		break;
	case 0x15: erase_line(mon); break;
	case 0x03:
		emit(mon, "^C\r\n", 4);
		mon->length = 0;
		monitor_printf(mon, PROMPT);
		break;
	default:
		if (byte < 0x20 || mon->length == LINE - 1)
			break;
		mon->line[mon->length++] = byte;
		emit(mon, (char *)&byte, 1);
		break;
	}
}

static size_t monitor_can_receive(struct chardev_front *f)
{
	return LINE;
}

static void monitor_receive(struct chardev_front *f, const u8 *bytes, size_t count)
{
	struct monitor *mon = container_of(f, struct monitor, front);

	while (count--)
		key(mon, *bytes++);
}

static void prompt(struct monitor *mon)
{
	if (!mon->greeted)
		monitor_printf(mon, "Trine monitor; help lists the commands\n");
	mon->greeted = true;
	monitor_printf(mon, PROMPT);
}

static void monitor_event(struct chardev_front *f, enum chardev_event event)
{
	struct monitor *mon = container_of(f, struct monitor, front);

	switch (event) {
	case CHARDEV_OPENED:
		mon->length = 0;
		/* On a multiplexer nothing is said before it has the keyboard. */
		if (mon->front.chardev && mon->front.chardev->front == f)
			prompt(mon);
		break;
	case CHARDEV_FOCUS_IN:
		emit(mon, "\r\n", 2);
		prompt(mon);
		break;
	case CHARDEV_FOCUS_OUT: emit(mon, "\r\n", 2); break;
	default: break;
	}
}

static void monitor_writable(struct chardev_front *f)
{
	flush(container_of(f, struct monitor, front));
}

int monitor_create(struct machine *m, const char *id, struct error *err)
{
	struct monitor *mon = xzalloc(sizeof(*mon));
	int r;

	mon->machine = m;
	mon->front = (struct chardev_front){ .can_receive = monitor_can_receive,
					     .receive = monitor_receive,
					     .event = monitor_event,
					     .writable = monitor_writable };
	r = chardev_attach(m, id, &mon->front, err);
	if (r < 0) {
		free(mon);
		return r;
	}
	list_add_tail(&m->monitors, &mon->link);
	return 0;
}

void monitor_destroy_all(struct machine *m)
{
	struct monitor *mon;

	while (!list_empty(&m->monitors)) {
		mon = list_entry(m->monitors.next, struct monitor, link);
		list_del(&mon->link);
		chardev_detach(&mon->front);
		free(mon->output);
		free(mon);
	}
}
