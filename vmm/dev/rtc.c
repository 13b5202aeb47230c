/*
 * MC146818A real-time clock.
 *
 * The time is the host's plus an offset, so nothing runs while nobody looks: registers are computed
 * when read, and timers are armed only for interrupts that are switched on. A machine that was
 * stopped for a while finds the clock right when it goes on.
 */
#include "vmm/dev/rtc.h"
#include "vmm/machine.h"
#include <time.h>

#define YEAR_2200 7258118400ll /* in seconds since 1970 */

#define RTC_IRQ 8
#define CMOS	128
#define UIP_NS	244000ll /* the update is announced this long before (data sheet, figure 20) */

enum {
	REG_SECONDS,
	REG_SECONDS_ALARM,
	REG_MINUTES,
	REG_MINUTES_ALARM,
	REG_HOURS,
	REG_HOURS_ALARM,
	REG_WEEKDAY,
	REG_DAY,
	REG_MONTH,
	REG_YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
	REG_CENTURY = 0x32,
};

#define A_UIP 0x80
#define A_DV  0x70 /* 0x20: the divider runs */
#define A_RS  0x0f

#define B_SET 0x80
#define B_PIE 0x40
#define B_AIE 0x20
#define B_UIE 0x10
#define B_DM  0x04 /* binary, not BCD */
#define B_24  0x02

#define C_IRQF 0x80
#define C_PF   0x40
#define C_AF   0x20
#define C_UF   0x10

#define D_VRT 0x80

#define ALARM_ANY 0xc0 /* an alarm byte from here on matches everything */

struct rtc {
	struct device dev;
	struct io_region ports;
	u8 index;
	u8 cmos[CMOS];
	s64 offset; /* guest's time since 1970 minus the host's, ns */
	s64 frozen; /* the time while SET holds the update, ns since 1970 */
	struct loop_timer periodic, second;
};

static s64 host_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static bool held(const struct rtc *s)
{
	return s->cmos[REG_B] & B_SET || (s->cmos[REG_A] & A_DV) != 0x20;
}

static s64 rtc_now(const struct rtc *s)
{
	return held(s) ? s->frozen : host_ns() + s->offset;
}

static s64 loop_now_vm(const struct rtc *s)
{
	return loop_now(&s->dev.machine->loop, LOOP_CLOCK_VM);
}

/* --- registers and time --- */

static u8 encode(const struct rtc *s, unsigned v)
{
	return s->cmos[REG_B] & B_DM ? v : (v / 10) << 4 | v % 10;
}

static unsigned decode(const struct rtc *s, u8 v)
{
	return s->cmos[REG_B] & B_DM ? v : (v >> 4) * 10 + (v & 15);
}

static u8 encode_hour(const struct rtc *s, unsigned hour)
{
	if (s->cmos[REG_B] & B_24)
		return encode(s, hour);
	return encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static unsigned decode_hour(const struct rtc *s, u8 v)
{
	if (s->cmos[REG_B] & B_24)
		return decode(s, v);
	return decode(s, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static void load_time(struct rtc *s)
{
	time_t t = rtc_now(s) / NS_PER_SEC;
	struct tm tm;

	gmtime_r(&t, &tm);
	s->cmos[REG_SECONDS] = encode(s, tm.tm_sec);
	s->cmos[REG_MINUTES] = encode(s, tm.tm_min);
	s->cmos[REG_HOURS] = encode_hour(s, tm.tm_hour);
	s->cmos[REG_WEEKDAY] = encode(s, tm.tm_wday + 1);
	s->cmos[REG_DAY] = encode(s, tm.tm_mday);
	s->cmos[REG_MONTH] = encode(s, tm.tm_mon + 1);
	s->cmos[REG_YEAR] = encode(s, tm.tm_year % 100);
	s->cmos[REG_CENTURY] = encode(s, tm.tm_year / 100 + 19);
}

/* The guest has written a time register: what they say together is the time from now on. */
static void store_time(struct rtc *s, s64 fraction)
{
	struct tm tm = {
		.tm_sec = decode(s, s->cmos[REG_SECONDS]),
		.tm_min = decode(s, s->cmos[REG_MINUTES]),
		.tm_hour = decode_hour(s, s->cmos[REG_HOURS]),
		.tm_mday = decode(s, s->cmos[REG_DAY]),
		.tm_mon = (int)decode(s, s->cmos[REG_MONTH]) - 1,
		.tm_year = (int)(decode(s, s->cmos[REG_YEAR]) +
				 decode(s, s->cmos[REG_CENTURY]) * 100) -
			   1900,
	};
	s64 seconds = timegm(&tm), now;

	/* Registers can hold a year of 16,000; nanoseconds reach to 2262. */
	seconds = MAX(MIN(seconds, YEAR_2200), 0);
	now = seconds * NS_PER_SEC + fraction;
	s->frozen = now;
	s->offset = now - host_ns();
}

/* --- interrupts --- */

static void raise_flags(struct rtc *s, u8 flags)
{
	s->cmos[REG_C] |= flags;
	if (s->cmos[REG_C] & s->cmos[REG_B] & (C_PF | C_AF | C_UF)) {
		s->cmos[REG_C] |= C_IRQF;
		irq_set(s->dev.machine, RTC_IRQ, true);
	}
}

/*
 * Periods by rate select: 1 and 2 are 3.90625 and 7.8125 ms, from 3 on 122 us doubling (table 5,
 * 32.768 kHz).
 */
static s64 period_ns(const struct rtc *s)
{
	unsigned rate = s->cmos[REG_A] & A_RS;

	if (!rate)
		return 0;
	if (rate < 3)
		rate += 7;
	return (NS_PER_SEC << (rate - 1)) / 32768;
}

static void periodic_update(struct rtc *s)
{
	s64 period = period_ns(s), now = loop_now_vm(s);

	if (!(s->cmos[REG_B] & B_PIE) || !period || (s->cmos[REG_A] & A_DV) != 0x20) {
		loop_timer_cancel(&s->periodic);
		return;
	}
	if (!s->periodic.armed)
		loop_timer_set(&s->periodic, now + period);
}

static void periodic_expired(struct loop_timer *t)
{
	struct rtc *s = container_of(t, struct rtc, periodic);
	s64 next = t->deadline + MAX(period_ns(s), 1), now = loop_now_vm(s);

	/*
	 * Periods that were missed are lost, as they are on the chip when register C is not read in
	 * time.
	 */
	raise_flags(s, C_PF);
	periodic_update(s);
	if (t->armed)
		loop_timer_set(t, next > now ? next : now + period_ns(s));
}

static bool alarm_matches(struct rtc *s)
{
	static const u8 pairs[][2] = {
		{ REG_SECONDS, REG_SECONDS_ALARM },
		{ REG_MINUTES, REG_MINUTES_ALARM },
		{ REG_HOURS, REG_HOURS_ALARM },
	};
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(pairs); i++) {
		u8 alarm = s->cmos[pairs[i][1]];

		if ((alarm & ALARM_ANY) != ALARM_ANY && alarm != s->cmos[pairs[i][0]])
			return false;
	}
	return true;
}

/*
 * The timer of the update cycle runs at whole seconds of the guest's time, while someone waits for
 * alarm or update.
 */
static void second_update(struct rtc *s)
{
	s64 now;

	if (held(s) || !(s->cmos[REG_B] & (B_AIE | B_UIE))) {
		loop_timer_cancel(&s->second);
		return;
	}
	now = rtc_now(s);
	loop_timer_set(&s->second, loop_now_vm(s) + (NS_PER_SEC - now % NS_PER_SEC));
}

static void second_expired(struct loop_timer *t)
{
	struct rtc *s = container_of(t, struct rtc, second);

	load_time(s);
	raise_flags(s, C_UF | (alarm_matches(s) ? C_AF : 0));
	second_update(s);
}

/* --- ports --- */

/* Registers that the time is read from and set by. */
static bool holds_time(u8 index)
{
	return index == REG_SECONDS || index == REG_MINUTES || index == REG_HOURS || (index >= REG_WEEKDAY && index <= REG_YEAR) ||
	       index == REG_CENTURY;
}

static u64 rtc_read(struct io_region *r, u64 offset, unsigned size)
{
	struct rtc *s = container_of(r, struct rtc, ports);
	u8 v;

	if (!(offset & 1))
		return 0xff; /* the index register is write-only */
	if (holds_time(s->index) && !(s->cmos[REG_B] & B_SET))
		load_time(s);
	switch (s->index) {
	case REG_A:
		v = s->cmos[REG_A];
		if (!held(s) && rtc_now(s) % NS_PER_SEC >= NS_PER_SEC - UIP_NS)
			v |= A_UIP;
		return v;
	case REG_C:
		v = s->cmos[REG_C];
		s->cmos[REG_C] = 0;
		irq_set(s->dev.machine, RTC_IRQ, false);
		return v;
	}
	return s->cmos[s->index];
}

static void write_control(struct rtc *s, u8 index, u8 v)
{
	bool was_held = held(s);
	s64 now = rtc_now(s);

	if (was_held == false)
		load_time(s);
	if (index == REG_A)
		s->cmos[REG_A] = v & ~A_UIP;
	else
		s->cmos[REG_B] = v & B_SET ? v & ~B_UIE : v;
	if (!was_held && held(s)) {
		s->frozen = now;
	} else if (was_held && !held(s)) {
		/*
		 * The divider starts anew: the first update comes half a second after (data sheet,
		 * "Divider Control").
		 */
		s->offset = s->frozen - host_ns();
		if (index == REG_A)
			s->offset += NS_PER_SEC / 2 - s->frozen % NS_PER_SEC;
	}
	loop_timer_cancel(&s->periodic);
	periodic_update(s);
	second_update(s);
	raise_flags(s, 0);
}

static void rtc_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct rtc *s = container_of(r, struct rtc, ports);
	s64 now = rtc_now(s);
	u8 v = value;

	if (!(offset & 1)) {
		s->index = v & 0x7f; /* bit 7 masks NMIs, of which there are none by this way */
		return;
	}
	if (holds_time(s->index)) {
		if (!(s->cmos[REG_B] & B_SET))
			load_time(s);
		s->cmos[s->index] = v;
		store_time(s, now % NS_PER_SEC);
		second_update(s);
		return;
	}
	switch (s->index) {
	case REG_A:
	case REG_B: write_control(s, s->index, v); break;
	case REG_C:
	case REG_D: break; /* read-only */
	default: s->cmos[s->index] = v; break;
	}
}

static const struct io_ops rtc_ops = { .read = rtc_read, .write = rtc_write, .max_size = 1 };

static void rtc_reset(struct device *dev)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	/*
	 * The time goes on; interrupts are off (data sheet, "RESET"). A set that was under way is
	 * over.
	 */
	s->cmos[REG_A] = 0x26;
	s->cmos[REG_B] = B_24;
	s->cmos[REG_C] = 0;
	s->cmos[REG_D] = D_VRT;
	s->index = 0;
	loop_timer_cancel(&s->periodic);
	loop_timer_cancel(&s->second);
	irq_set(dev->machine, RTC_IRQ, false);
}

static int rtc_realize(struct device *dev, struct error *err)
{
	struct rtc *s = container_of(dev, struct rtc, dev);
	struct machine *m = dev->machine;

	s->offset = m->config.rtc_offset * NS_PER_SEC;
	loop_timer_init(&s->periodic, &m->loop, LOOP_CLOCK_VM, periodic_expired);
	loop_timer_init(&s->second, &m->loop, LOOP_CLOCK_VM, second_expired);
	io_region_init(&s->ports, "rtc", &rtc_ops, 8); /* four times the same two ports */
	io_region_map(m, &s->ports, IO_PORT, 0x70, 0);
	return 0;
}

static void rtc_unrealize(struct device *dev)
{
	struct rtc *s = container_of(dev, struct rtc, dev);

	loop_timer_cancel(&s->periodic);
	loop_timer_cancel(&s->second);
	io_region_unmap(dev->machine, &s->ports);
}

static const struct device_class rtc_class = {
	.name = "mc146818rtc",
	.description = "real-time clock",
	.bus = "ISA",
	.internal = true,
	.size = sizeof(struct rtc),
	.realize = rtc_realize,
	.unrealize = rtc_unrealize,
	.reset = rtc_reset,
};
DEVICE_REGISTER(rtc_class)

static struct rtc *find(struct machine *m)
{
	struct list *pos;

	list_for_each (pos, &m->devices) {
		struct device *dev = list_entry(pos, struct device, link);

		if (dev->class == &rtc_class)
			return container_of(dev, struct rtc, dev);
	}
	return NULL;
}

void rtc_cmos_set(struct machine *m, u8 index, u8 value)
{
	struct rtc *s = find(m);

	if (s && index > REG_D && index < CMOS)
		s->cmos[index] = value;
}

/* Memory sizes and the rest, where PC firmware leaves them. */
static void fill_cmos(struct machine *m)
{
	u64 low = memory_below_4g(m), high = memory_above_4g(m), v;

	rtc_cmos_set(m, 0x15, 640 & 0xff), rtc_cmos_set(m, 0x16, 640 >> 8);
	v = low > MiB ? MIN((low - MiB) / KiB, 65535ull) : 0;
	rtc_cmos_set(m, 0x17, v), rtc_cmos_set(m, 0x18, v >> 8);
	rtc_cmos_set(m, 0x30, v), rtc_cmos_set(m, 0x31, v >> 8);
	v = low > 16 * MiB ? MIN((low - 16 * MiB) / (64 * KiB), 65535ull) : 0;
	rtc_cmos_set(m, 0x34, v), rtc_cmos_set(m, 0x35, v >> 8);
	v = high / (64 * KiB);
	rtc_cmos_set(m, 0x5b, v), rtc_cmos_set(m, 0x5c, v >> 8), rtc_cmos_set(m, 0x5d, v >> 16);
	rtc_cmos_set(m, 0x5f, m->config.cpus - 1);
	rtc_cmos_set(m, 0x14, 0x06); /* a coprocessor and a PS/2 mouse */
}

int rtc_create(struct machine *m, struct error *err)
{
	if (!device_create(m, &rtc_class, NULL, err))
		return -EINVAL;
	fill_cmos(m);
	return 0;
}
