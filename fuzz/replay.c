/*
 * Feeds a fuzz target without libFuzzer: every file of a directory, then made-up inputs, the same ones each time.
 *
 *	replay-decode fuzz/corpus/decode
 *
 * One verdict a file and one for all that is made up; what a target does wrong ends the process.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/tap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

#define MADE_UP 2000
#define LONGEST 1024

static uint64_t state = 0x9e3779b97f4a7c15;

static uint64_t random64(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Half of all bytes are the small and the full values that fields tend to have. */
static void make_up(uint8_t *data, size_t size)
{
	static const uint8_t usual[] = {0, 0, 0, 1, 2, 4, 8, 0x10, 0x40, 0x7f, 0x80, 0xfe, 0xff};

	for (size_t i = 0; i < size; i++) {
		uint64_t r = random64();

		data[i] = r & 1 << 20 ? usual[(r >> 32) % sizeof(usual)] : r >> 56;
	}
}

/* The target gets exactly what it may read, so that a sanitizer sees the byte after it. */
static void feed(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static void feed_file(const char *dir, const char *name)
{
	char path[4096];
	uint8_t *data;
	struct stat st;
	FILE *file;
	size_t got;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "rb");
	if (!file || fstat(fileno(file), &st) || !S_ISREG(st.st_mode)) {
		tap_ok(false, "%s can be read", path);
		goto out;
	}
	data = malloc(st.st_size + 1);
	if (!data)
		abort();
	got = fread(data, 1, st.st_size, file);
	feed(data, got);
	tap_ok(got == (size_t)st.st_size, "%s does no harm", name);
	free(data);
out:
	if (file)
		fclose(file);
}

int main(int argc, char **argv)
{
	static uint8_t data[LONGEST];
	struct dirent **names;
	int count;

	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
		return 2;
	}
	tap_begin();
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);

	/* A target may have no kept inputs. */
	count = scandir(argv[1], &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		if (names[i]->d_name[0] != '.')
			feed_file(argv[1], names[i]->d_name);
		free(names[i]);
	}
	if (count >= 0)
		free(names);

	for (int i = 0; i < MADE_UP; i++) {
		size_t size = random64() % (i % 8 ? 64 : LONGEST + 1);

		make_up(data, size);
		feed(data, size);
	}
	tap_ok(true, "%d made-up inputs do no harm", MADE_UP);
	return tap_end();
}
