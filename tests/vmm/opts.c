/* Option strings: what they mean, and what is refused with which words. */
#include "tests/tap.h"
#include "vmm/opts.h"

static const struct {
	const char *text;
	int result;
	u64 bytes;
} sizes[] = {
	{ "512", 0, 512 * MiB },
	{ "512M", 0, 512 * MiB },
	{ "4G", 0, 4 * GiB },
	{ "4g", 0, 4 * GiB },
	{ "1.5G", 0, 3 * GiB / 2 },
	{ "64k", 0, 64 * KiB },
	{ "123B", 0, 123 },
	{ "1T", 0, 1024 * GiB },
	{ "0x10", 0, 16 },
	{ "", -EINVAL, 0 },
	{ "M", -EINVAL, 0 },
	{ "-1", -EINVAL, 0 },
	{ "12Q", -EINVAL, 0 },
	{ "12MM", -EINVAL, 0 },
	{ "1.G5", -EINVAL, 0 },
	{ "99999999999E", -ERANGE, 0 },
	{ "99999999999999999999", -ERANGE, 0 },
	{ "16777216T", -ERANGE, 0 },
};

static void test_sizes(void)
{
	unsigned i;
	u64 v;
	int r;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		v = 0;
		r = parse_size(sizes[i].text, MiB, &v);
		tap_ok(r == sizes[i].result && (r || v == sizes[i].bytes), "size \"%s\"",
		       sizes[i].text);
	}
}

static const struct {
	const char *text;
	bool good, value;
} bools[] = {
	{ "on", true, true },  { "off", true, false }, { "yes", true, true },
	{ "no", true, false }, { "true", true, true }, { "false", true, false },
	{ "1", false, false }, { "", false, false },   { "ON", false, false },
};

static void test_bools(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(bools); i++) {
		bool v = !bools[i].value;
		int r = parse_bool(bools[i].text, &v);

		tap_ok((r == 0) == bools[i].good && (r || v == bools[i].value), "switch \"%s\"",
		       bools[i].text);
	}
}

static const struct {
	const char *text, *implied, *key, *value; /* value NULL: refused */
} lists[] = {
	{ "a=1,b=2", NULL, "b", "2" },
	{ "a=1,b=2,a=3", NULL, "a", "3" },
	{ "virtio-rng-pci,max-bytes=5", "driver", "driver", "virtio-rng-pci" },
	{ "driver=x", "driver", "driver", "x" },
	{ "a,,b", "file", "file", "a,b" },
	{ "file=a,,,,b,c=d", NULL, "file", "a,,b" },
	{ "file=a,,,,b,c=d", NULL, "c", "d" },
	{ "x=", NULL, "x", "" },
	{ "x=a=b", NULL, "x", "a=b" },
	{ "server", NULL, "server", "on" },
	{ "nowait", NULL, "wait", "off" },
	{ "a=1,", NULL, "a", "1" },
	{ "=1", NULL, "", NULL },
	{ ",a=1", NULL, "a", NULL },
};

static void test_lists(void)
{
	struct error err;
	struct opts o;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		int r = opts_parse(&o, lists[i].text, lists[i].implied, &err);
		const char *v = r ? NULL : opts_get(&o, lists[i].key);

		tap_ok(lists[i].value ? v && !strcmp(v, lists[i].value) : r == -EINVAL,
		       "list \"%s\": %s", lists[i].text, lists[i].value ? lists[i].key : "refused");
		if (!r)
			opts_free(&o);
	}
}

static void test_finish(void)
{
	struct error err = { "" };
	struct opts o;
	u64 v = 7;

	opts_parse(&o, "size=4G,flux=1,count=x,many=300", NULL, &err);
	tap_ok(opts_size(&o, "size", &v, &err) == 0 && v == 4 * GiB, "a size is read");
	tap_ok(opts_u64(&o, "absent", &v, 10, &err) == 0 && v == 4 * GiB,
	       "an absent number leaves the value alone");
	tap_ok(opts_u64(&o, "count", &v, 10, &err) == -EINVAL && strstr(err.text, "count=x"),
	       "no number: %s", err.text);
	tap_ok(opts_u64(&o, "many", &v, 255, &err) == -ERANGE && strstr(err.text, "many=300"),
	       "too large: %s", err.text);
	tap_ok(opts_finish(&o, "thing", &err) == -EINVAL && strstr(err.text, "flux"),
	       "a key nobody asked for: %s", err.text);
	opts_get(&o, "flux");
	tap_ok(opts_finish(&o, "thing", &err) == 0, "all asked for");
	opts_free(&o);
}

int main(void)
{
	tap_begin();
	test_sizes();
	test_bools();
	test_lists();
	test_finish();
	return tap_end();
}
