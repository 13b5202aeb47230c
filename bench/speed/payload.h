/*
 * The fixed guest program of `make bench`: whole-number work as programs do it, the same in every world. It is
 * compiled once and linked into a native program and into a guest, so both run the same instructions.
 */
#ifndef BENCH_SPEED_PAYLOAD_H
#define BENCH_SPEED_PAYLOAD_H

#include <stdint.h>

/**
 * Does @rounds rounds of the work. Every round after the first is the same instruction sequence, so the count of
 * instructions is a constant and so much a round. Returns a checksum of the results, a function of @rounds alone.
 */
uint64_t speed_payload(uint64_t rounds);

#endif
