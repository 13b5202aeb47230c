/* See options.h. */
#include "engines/lite/options.h"

#include "hosts/user/log.h"

struct lite_options lite_options = { .engine = LITE_ENGINE_AUTO, .windows = LITE_WINDOWS_ON, .cache_mib = 24, .verify = LITE_VERIFY_DEFAULT };

const struct lite_log_item lite_log_items[] = {
	{ LITE_LOG_IN_ASM, "in_asm", "guest code that is translated" },
	{ LITE_LOG_OUT_ASM, "out_asm", "the code that it becomes" },
	{ LITE_LOG_EXITS, "exits", "each return from guest code, and why" },
	{ 0, NULL, NULL }
};

#define NAME_MAX_ 16
#define VALUE_MAX 4096

/* What one string asks for; carried out when all of it was understood. */
struct request {
	struct lite_options options;
	bool has_file;
	char file[VALUE_MAX];
	char value[VALUE_MAX];
	char *error;
	size_t size;
};

/* Decimal, at most @max; the caller knows the least. */
static bool number(const char *text, u32 max, u32 *value)
{
	u64 v = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		v = v * 10 + (u64)(*text - '0');
		if (v > max)
			return false;
	}
	*value = (u32)v;
	return true;
}

static bool on_or_off(const char *text, bool *value)
{
	if (strcmp(text, "on") && strcmp(text, "off"))
		return false;
	*value = text[1] == 'n';
	return true;
}

/* One of three names, by its number. */
static int choice(struct request *q, const char *option, const char *const names[3], u32 *value)
{
	for (u32 i = 0; i < 3; i++) {
		if (!strcmp(q->value, names[i])) {
			*value = i;
			return 0;
		}
	}
	host_snprintf(q->error, q->size, "%s=%s: %s, %s or %s is wanted", option, q->value, names[0], names[1], names[2]);
	return -EINVAL;
}

static int take_engine(struct request *q)
{
	static const char *const names[] = { "auto", "interp", "jit" };

	return choice(q, "engine", names, &q->options.engine);
}

static int take_lockstep(struct request *q)
{
	bool on;

	if (on_or_off(q->value, &on)) {
		q->options.lockstep = on;
		return 0;
	}
	if (number(q->value, ~0U, &q->options.lockstep))
		return 0;
	host_snprintf(q->error, q->size, "lockstep=%s: on, off or a number of blocks is wanted", q->value);
	return -EINVAL;
}

static int take_windows(struct request *q)
{
	static const char *const names[] = { "off", "on", "eager" };

	return choice(q, "windows", names, &q->options.windows);
}

static int take_cache(struct request *q)
{
	if (number(q->value, LITE_CACHE_MIB_MAX, &q->options.cache_mib) && q->options.cache_mib >= LITE_CACHE_MIB_MIN)
		return 0;
	host_snprintf(q->error, q->size, "cache=%s: a number of MiB from %u to %u is wanted", q->value, LITE_CACHE_MIB_MIN,
		      LITE_CACHE_MIB_MAX);
	return -EINVAL;
}

static int take_verify(struct request *q)
{
	static const char *const names[] = { "off", "on", "abort" };

	return choice(q, "verify", names, &q->options.verify);
}

static int take_log(struct request *q)
{
	const struct lite_log_item *item;
	const char *p = q->value;
	size_t n;
	u32 log = 0;

	while (strcmp(q->value, "none")) {
		n = strcspn(p, "+");
		for (item = lite_log_items; item->name; item++)
			if (strlen(item->name) == n && !memcmp(item->name, p, n))
				break;
		if (!item->name) {
			int at = host_snprintf(q->error, q->size, "log=%.*s: no such item; there are", (int)n, p);

			for (item = lite_log_items; item->name && at > 0 && (size_t)at < q->size; item++)
				at += host_snprintf(q->error + at, q->size - (size_t)at, " %s%s", item->name,
						    item[1].name ? "," : " and none");
			return -EINVAL;
		}
		log |= item->bit;
		if (!p[n])
			break;
		p += n + 1;
	}
	q->options.log = log;
	return 0;
}

static int take_logfile(struct request *q)
{
	if (!*q->value) {
		host_snprintf(q->error, q->size, "logfile=: a file name is wanted");
		return -EINVAL;
	}
	memcpy(q->file, q->value, sizeof(q->file));
	q->has_file = true;
	return 0;
}

static const struct {
	const char *name;
	int (*take)(struct request *q);
} options[] = {
	{ "engine", take_engine }, { "lockstep", take_lockstep }, { "windows", take_windows },
	{ "cache", take_cache },   { "verify", take_verify },	  { "log", take_log },	      { "logfile", take_logfile },
};

static int take(struct request *q, const char *name, size_t len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
		if (strlen(options[i].name) == len && !memcmp(options[i].name, name, len))
			return options[i].take(q);
	host_snprintf(q->error, q->size, "%.*s: no such option; there are engine, lockstep, windows, cache, verify, log and logfile",
		      (int)len, name);
	return -EINVAL;
}

static int parse(struct request *q, const char *text)
{
	while (*text) {
		size_t len = strcspn(text, "=,"), n = 0;
		const char *name = text;
		int err;

		if (!len || text[len] != '=') {
			host_snprintf(q->error, q->size, "%.*s: name=value is wanted", (int)strcspn(text, ","), text);
			return -EINVAL;
		}
		for (text += len + 1; *text && (*text != ',' || text[1] == ','); text++) {
			text += *text == ',';
			if (n == VALUE_MAX - 1) {
				host_snprintf(q->error, q->size, "%.*s: its value is longer than %d bytes", (int)len, name,
					      VALUE_MAX - 1);
				return -EINVAL;
			}
			q->value[n++] = *text;
		}
		text += *text == ',';
		q->value[n] = 0;
		err = take(q, name, len);
		if (err)
			return err;
	}
	return 0;
}

int lite_options_parse(const char *text, char *error, size_t size)
{
	struct request *q = host_zalloc(sizeof(*q));
	int err = -ENOMEM;

	if (size)
		error[0] = 0;
	if (!q) {
		host_snprintf(error, size, "no memory for the options");
		return err;
	}
	q->options = lite_options;
	q->error = error;
	q->size = size;
	err = parse(q, text);
	if (!err && q->has_file) {
		err = host_trace_open(q->file);
		if (err)
			host_snprintf(error, size, "logfile=%s: %s", q->file, strerror(-err));
	}
	if (!err) {
		lite_options.engine = q->options.engine;
		lite_options.lockstep = q->options.lockstep;
		lite_options.windows = q->options.windows;
		lite_options.cache_mib = q->options.cache_mib;
		lite_options.verify = q->options.verify;
		__atomic_store_n(&lite_options.log, q->options.log, __ATOMIC_RELAXED);
	}
	host_free(q);
	return err;
}
