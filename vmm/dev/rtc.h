/*
 * The real-time clock and its CMOS memory (Motorola MC146818A), ports 0x70 and 0x71, interrupt 8.
 */
#ifndef VMM_DEV_RTC_H
#define VMM_DEV_RTC_H

#include "vmm/util.h"

struct machine;

int rtc_create(struct machine *m, struct error *err);

/** Sets a byte of CMOS memory (0x0e and up), as firmware does; it survives reset. */
void rtc_cmos_set(struct machine *m, u8 index, u8 value);

#endif
