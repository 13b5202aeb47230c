/*
 * Included before everything else (-include) into core, engines/lite and hosts/user: the guest's vector registers are loaded in the
 * processor while these run, and the C library's memory functions use them. So calls of memcpy() and its kin, those too that the
 * compiler makes up for assignments of structures, go to functions that use general registers only (general.c). Other functions of the
 * library that use vector registers are called with HOST_KEEP_VECTORS, or where no guest runs; tests/layers/vectors.py holds the list.
 *
 * Sanitizers know the library's own functions: their builds are without this file, HOST_GENERAL_ONLY is not defined, and the
 * engine saves the registers before every call that leaves it.
 */
#ifndef HOSTS_USER_GENERAL_H
#define HOSTS_USER_GENERAL_H

#define HOST_GENERAL_ONLY 1

void *memcpy(void *__restrict dst, const void *__restrict src, __SIZE_TYPE__ len) __asm__("trine_memcpy");
void *memmove(void *dst, const void *src, __SIZE_TYPE__ len) __asm__("trine_memmove");
void *memset(void *dst, int byte, __SIZE_TYPE__ len) __asm__("trine_memset");
int memcmp(const void *a, const void *b, __SIZE_TYPE__ len) __asm__("trine_memcmp");

#endif
