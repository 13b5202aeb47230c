/*
 * Option strings as QEMU writes them: "virtio-blk-pci,drive=hd0,serial=a,,b,bootindex=1".
 *
 *	struct opts o;
 *
 *	opts_parse(&o, arg, "driver", err);	a first word without '=' is the value of "driver"
 *	name = opts_get(&o, "driver");
 *	opts_size(&o, "size", &bytes, err);	untouched when absent
 *	opts_finish(&o, "-device", err);	fails, naming it, if a key was never asked for
 *	opts_free(&o);
 *
 * ",," stands for a comma in a value. A later word without '=' is that key with the value "on",
 * with a leading "no" "off".
 */
#ifndef VMM_OPTS_H
#define VMM_OPTS_H

#include "vmm/util.h"

#define OPTS_MAX 64

struct opt {
	char *key, *value;
	bool used;
};

struct opts {
	struct opt opt[OPTS_MAX];
	unsigned count;
};

/**
 * -EINVAL with a text: an empty key, too many. @implied may be NULL: then the first word follows
 * the general rule.
 */
int opts_parse(struct opts *o, const char *text, const char *implied, struct error *err);
void opts_free(struct opts *o);

/** The last value given for @key, or NULL; marks it as used. */
const char *opts_get(struct opts *o, const char *key);
/** As opts_get, with what to give if absent. */
const char *opts_get_or(struct opts *o, const char *key, const char *otherwise);
/** Sets or replaces. */
void opts_set(struct opts *o, const char *key, const char *value);
/** Takes @key away. */
void opts_remove(struct opts *o, const char *key);

/** on/off/yes/no/true/false. Absent: *@value stays. -EINVAL with a text. */
int opts_bool(struct opts *o, const char *key, bool *value, struct error *err);
/** Decimal, 0x hexadecimal or 0 octal; at most @max. */
int opts_u64(struct opts *o, const char *key, u64 *value, u64 max, struct error *err);
/**
 * Bytes, with a suffix B K M G T P (powers of 1024); none is bytes. Fractions as in 1.5G are
 * understood.
 */
int opts_size(struct opts *o, const char *key, u64 *value, struct error *err);

/** -EINVAL if some key was never asked for: "@what: KEY: no such property". */
int opts_finish(const struct opts *o, const char *what, struct error *err);

/** The same conversions for a plain string. @unit is the factor of a number without suffix. */
int parse_size(const char *text, u64 unit, u64 *value);
int parse_u64(const char *text, u64 *value);
int parse_bool(const char *text, bool *value);

#endif
