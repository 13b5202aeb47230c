/*
 * Nothing tells a process that its address space changes, and lite needs no telling. Those who test what does say it themselves, around
 * the change, as the kernel would:
 *
 *	host_mm_change_begin(start, end);
 *	munmap((void *)start, end - start);
 *	host_mm_change_end();
 */
#ifndef HOSTS_USER_PAGES_H
#define HOSTS_USER_PAGES_H

#include "hosts/host.h"

/** One change at a time, of whatever thread: begin waits for the one before. Tells every host_mm_watch. */
void host_mm_change_begin(u64 start, u64 end);
void host_mm_change_end(void);
/** Asks every host_mm_watch; true when one has seen [@start, @end) used. */
bool host_mm_age(u64 start, u64 end, bool clear);
/** The address space goes. */
void host_mm_gone(void);

#endif
