/*
 * The guest around the payload: "B" to the first serial port, the work, "E", the checksum in hex and a newline,
 * then the debug exit port. Whoever reads the port takes the time between the two letters.
 */
#include <stdint.h>

#include "bench/speed/payload.h"

#define SERIAL	   0x3f8
#define DEBUG_EXIT 0xf4

/* What the PVH boot protocol hands over, as far as it is wanted here. */
struct start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist_paddr;
	uint64_t cmdline_paddr;
};

uint64_t rounds_of_start_info(const struct start_info *info);
void guest_main(uint64_t rounds);

/* gcc may ask for these whatever the flags. */
void *memset(void *to, int byte, unsigned long size);
void *memset(void *to, int byte, unsigned long size)
{
	for (unsigned long i = 0; i < size; i++)
		((volatile char *)to)[i] = byte;
	return to;
}

static void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

/** The number that the command line begins with; 1 without one. */
uint64_t rounds_of_start_info(const struct start_info *info)
{
	const char *word = (const char *)info->cmdline_paddr;
	uint64_t rounds = 0;

	/* QEMU puts the name of the kernel's file before the words of -append. */
	for (const char *s = word; s && *s; s++) {
		if (*s == ' ')
			word = s + 1;
	}
	while (word && *word >= '0' && *word <= '9')
		rounds = rounds * 10 + (*word++ - '0');
	return rounds ? rounds : 1;
}

void guest_main(uint64_t rounds)
{
	uint64_t sum;

	out8(SERIAL, 'B');
	sum = speed_payload(rounds);
	out8(SERIAL, 'E');
	for (int shift = 60; shift >= 0; shift -= 4)
		out8(SERIAL, "0123456789abcdef"[sum >> shift & 15]);
	out8(SERIAL, '\n');
	out8(DEBUG_EXIT, 0);
}
