/* The bits of page-table entries, SDM 3A 4.5, by the names that the tests' tables are read best with. */
#ifndef TESTS_PAGING_H
#define TESTS_PAGING_H

#define P  1ULL
#define W  2ULL
#define U  4ULL
#define A  0x20ULL
#define D  0x40ULL
#define PS 0x80ULL
#define G  0x100ULL
#define NX (1ULL << 63)

#endif
