/* Parsing of key=value lists, sizes, numbers and switches. */
#include "vmm/opts.h"
#include <ctype.h>
#include <stdlib.h>

/*
 * Copies up to a single comma or the end; ",," becomes ",". Returns what follows the comma, or NULL
 * at the end.
 */
static const char *take_value(const char *p, char **value)
{
	char *out = xzalloc(strlen(p) + 1);

	*value = out;
	for (;; p++) {
		if (*p == ',' && p[1] == ',')
			p++;
		else if (*p == ',')
			return p + 1;
		else if (!*p)
			return NULL;
		*out++ = *p;
	}
}

int opts_parse(struct opts *o, const char *text, const char *implied, struct error *err)
{
	const char *p = text, *eq, *end;
	struct opt *opt;

	o->count = 0;
	while (p && *p) {
		if (o->count == OPTS_MAX) {
			opts_free(o);
			return error_set(err, -EINVAL, "%s: more than %d properties", text,
					 OPTS_MAX);
		}
		opt = &o->opt[o->count];
		end = p + strcspn(p, ",");
		eq = memchr(p, '=', end - p);
		if (eq == p || end == p) {
			opts_free(o);
			return error_set(err, -EINVAL, "%s: a property without a name", text);
		}
		opt->used = false;
		if (eq) {
			opt->key = xzalloc(eq - p + 1);
			memcpy(opt->key, p, eq - p);
			p = take_value(eq + 1, &opt->value);
		} else if (implied && p == text) {
			opt->key = xstrdup(implied);
			p = take_value(p, &opt->value);
		} else {
			bool no = end - p > 2 && !strncmp(p, "no", 2);

			opt->key = xzalloc(end - p + 1);
			memcpy(opt->key, p + (no ? 2 : 0), end - p - (no ? 2 : 0));
			opt->value = xstrdup(no ? "off" : "on");
			p = *end ? end + 1 : NULL;
		}
		o->count++;
	}
	return 0;
}

void opts_free(struct opts *o)
{
	unsigned i;

	for (i = 0; i < o->count; i++) {
		free(o->opt[i].key);
		free(o->opt[i].value);
	}
	o->count = 0;
}

const char *opts_get(struct opts *o, const char *key)
{
	const char *value = NULL;
	unsigned i;

	for (i = 0; i < o->count; i++) {
		if (strcmp(o->opt[i].key, key))
			continue;
		o->opt[i].used = true;
		value = o->opt[i].value;
	}
	return value;
}

const char *opts_get_or(struct opts *o, const char *key, const char *otherwise)
{
	const char *value = opts_get(o, key);

	return value ? value : otherwise;
}

void opts_set(struct opts *o, const char *key, const char *value)
{
	opts_remove(o, key);
	if (o->count < OPTS_MAX)
		o->opt[o->count++] = (struct opt){ .key = xstrdup(key), .value = xstrdup(value) };
}

void opts_remove(struct opts *o, const char *key)
{
	unsigned i, n = 0;

	for (i = 0; i < o->count; i++) {
		if (strcmp(o->opt[i].key, key)) {
			o->opt[n++] = o->opt[i];
			continue;
		}
		free(o->opt[i].key);
		free(o->opt[i].value);
	}
	o->count = n;
}

int parse_bool(const char *text, bool *value)
{
	if (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true") ||
	    !strcmp(text, "y"))
		*value = true;
	else if (!strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "false") ||
		 !strcmp(text, "n"))
		*value = false;
	else
		return -EINVAL;
	return 0;
}

int parse_u64(const char *text, u64 *value)
{
	unsigned long long v;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || *end)
		return errno ? -ERANGE : -EINVAL;
	*value = v;
	return 0;
}

static int unit_of(char c, u64 *unit)
{
	static const char units[] = "bkmgtpe";
	const char *p = strchr(units, tolower((unsigned char)c));

	if (!c || !p)
		return -EINVAL;
	*unit = 1ull << (10 * (p - units));
	return 0;
}

int parse_size(const char *text, u64 unit, u64 *value)
{
	u64 whole = 0, fraction = 0, scale = 1;
	const char *p = text;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X'))
		return parse_u64(text, value);
	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, *p - '0', &whole))
			return -ERANGE;
	if (*p == '.')
		for (p++; isdigit((unsigned char)*p) && scale < 1000000; p++, scale *= 10)
			fraction = fraction * 10 + (*p - '0');
	if (*p && (unit_of(*p, &unit) < 0 || p[1]))
		return -EINVAL;
	if (__builtin_mul_overflow(whole, unit, value) ||
	    __builtin_add_overflow(*value, (u64)((unsigned __int128)fraction * unit / scale),
				   value))
		return -ERANGE;
	return 0;
}

int opts_bool(struct opts *o, const char *key, bool *value, struct error *err)
{
	const char *text = opts_get(o, key);

	if (text && parse_bool(text, value) < 0)
		return error_set(err, -EINVAL, "%s=%s: on or off is wanted", key, text);
	return 0;
}

int opts_u64(struct opts *o, const char *key, u64 *value, u64 max, struct error *err)
{
	const char *text = opts_get(o, key);
	u64 v;
	int r;

	if (!text)
		return 0;
	r = parse_u64(text, &v);
	if (r == -EINVAL)
		return error_set(err, r, "%s=%s: a number is wanted", key, text);
	if (r < 0 || v > max)
		return error_set(err, -ERANGE, "%s=%s: at most %llu", key, text,
				 (unsigned long long)max);
	*value = v;
	return 0;
}

int opts_size(struct opts *o, const char *key, u64 *value, struct error *err)
{
	const char *text = opts_get(o, key);
	int r;

	if (!text)
		return 0;
	r = parse_size(text, 1, value);
	if (r == -EINVAL)
		return error_set(err, r, "%s=%s: a size is wanted, as in 512M or 4G", key, text);
	if (r < 0)
		return error_set(err, r, "%s=%s: too large", key, text);
	return 0;
}

int opts_finish(const struct opts *o, const char *what, struct error *err)
{
	unsigned i;

	for (i = 0; i < o->count; i++)
		if (!o->opt[i].used)
			return error_set(err, -EINVAL, "%s: no such property: %s", what,
					 o->opt[i].key);
	return 0;
}
