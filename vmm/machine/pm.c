/*
 * Power management registers (ACPI 6.4 chapter 4): the PM1a events and control that switch off, the
 * PM timer, and GPE0, which has no sources yet. The system control interrupt is a level on ISA
 * interrupt 9.
 */
#include "vmm/machine/pm.h"
#include "vmm/machine.h"
#include "vmm/machine/pc.h"

#define PM_TIMER_HZ 3579545ll

#define STS_TMR	   0x0001
#define STS_GBL	   0x0020
#define STS_PWRBTN 0x0100
#define STS_RTC	   0x0400
#define STS_WAK	   0x8000
#define EN_MASK	   0x0521

#define CNT_SCI_EN     0x0001
#define CNT_SLP_TYP(v) ((v) >> 10 & 7)
#define CNT_SLP_EN     0x2000
#define SLP_TYP_S5     0 /* as \_S5 in the DSDT says */

struct pc_pm {
	struct device dev;
	struct io_region regs;
	struct loop_timer timer; /* the next change of the timer's highest bit */
	u16 status, enable, control;
	u8 gpe_status[PC_PM_GPE0_LEN / 2], gpe_enable[PC_PM_GPE0_LEN / 2];
};

static struct machine *machine_of(const struct pc_pm *pm)
{
	return pm->dev.machine;
}

static void update(struct pc_pm *pm)
{
	irq_set(machine_of(pm), PC_SCI,
		pm->control & CNT_SCI_EN && pm->status & pm->enable & EN_MASK);
}

static u64 ticks(const struct pc_pm *pm)
{
	return (unsigned __int128)loop_now(&machine_of(pm)->loop, LOOP_CLOCK_VM) * PM_TIMER_HZ /
	       NS_PER_SEC;
}

/*
 * TMR_STS is set whenever bit 31 changes (4.8.3.3); without TMR_EN nobody sees, so it is noted when
 * looked at.
 */
static void timer_arm(struct pc_pm *pm)
{
	u64 next;

	if (!(pm->enable & STS_TMR)) {
		loop_timer_cancel(&pm->timer);
		return;
	}
	next = (ticks(pm) | 0x7fffffff) + 1;
	loop_timer_set(&pm->timer, (unsigned __int128)next * NS_PER_SEC / PM_TIMER_HZ + 1);
}

static void timer_expired(struct loop_timer *t)
{
	struct pc_pm *pm = container_of(t, struct pc_pm, timer);

	pm->status |= STS_TMR;
	update(pm);
	timer_arm(pm);
}

static u8 read_byte(struct pc_pm *pm, u64 offset)
{
	switch (offset) {
	case 0: return pm->status;
	case 1: return pm->status >> 8;
	case 2: return pm->enable;
	case 3: return pm->enable >> 8;
	case 4: return pm->control;
	case 5: return pm->control >> 8;
	}
	if (offset >= PC_PM_GPE0 && offset < PC_PM_GPE0 + PC_PM_GPE0_LEN / 2)
		return pm->gpe_status[offset - PC_PM_GPE0];
	if (offset >= PC_PM_GPE0 + PC_PM_GPE0_LEN / 2 && offset < PC_PM_GPE0 + PC_PM_GPE0_LEN)
		return pm->gpe_enable[offset - PC_PM_GPE0 - PC_PM_GPE0_LEN / 2];
	return 0;
}

static u64 pm_read(struct io_region *r, u64 offset, unsigned size)
{
	struct pc_pm *pm = container_of(r, struct pc_pm, regs);
	u64 v = 0;
	unsigned i;

	/* The timer is one 32-bit register, latched by the access. */
	if (offset >= PC_PM_TIMER && offset < PC_PM_TIMER + 4)
		return (ticks(pm) & 0xffffffff) >> (8 * (offset - PC_PM_TIMER));
	for (i = 0; i < size; i++)
		v |= (u64)read_byte(pm, offset + i) << (8 * i);
	return v;
}

static void enter_sleep(struct pc_pm *pm)
{
	if (CNT_SLP_TYP(pm->control) == SLP_TYP_S5)
		machine_shutdown(machine_of(pm), 0);
}

static void write_byte(struct pc_pm *pm, u64 offset, u8 v)
{
	switch (offset) {
	case 0: pm->status &= ~v; return;
	case 1: pm->status &= ~(v << 8); return;
	case 2: pm->enable = (pm->enable & 0xff00) | (v & (EN_MASK & 0xff)); return;
	case 3: pm->enable = (pm->enable & 0x00ff) | ((v << 8) & EN_MASK); return;
	/* ACPI mode is not left: there is no SMM that could take over. */
	case 4: pm->control = (pm->control & 0xff00) | v | CNT_SCI_EN; return;
	case 5:
		pm->control = (pm->control & 0x00ff) | ((v << 8) & ~CNT_SLP_EN);
		if (v << 8 & CNT_SLP_EN)
			enter_sleep(pm);
		return;
	}
	if (offset >= PC_PM_GPE0 && offset < PC_PM_GPE0 + PC_PM_GPE0_LEN / 2)
		pm->gpe_status[offset - PC_PM_GPE0] &= ~v;
	else if (offset >= PC_PM_GPE0 + PC_PM_GPE0_LEN / 2 && offset < PC_PM_GPE0 + PC_PM_GPE0_LEN)
		pm->gpe_enable[offset - PC_PM_GPE0 - PC_PM_GPE0_LEN / 2] = v;
}

static void pm_write(struct io_region *r, u64 offset, u64 value, unsigned size)
{
	struct pc_pm *pm = container_of(r, struct pc_pm, regs);
	unsigned i;

	for (i = 0; i < size; i++)
		write_byte(pm, offset + i, value >> (8 * i));
	timer_arm(pm);
	update(pm);
}

static const struct io_ops pm_ops = { .read = pm_read, .write = pm_write, .max_size = 4 };

static void pm_reset(struct device *dev)
{
	struct pc_pm *pm = container_of(dev, struct pc_pm, dev);

	pm->status = pm->enable = 0;
	pm->control = CNT_SCI_EN;
	memset(pm->gpe_status, 0, sizeof(pm->gpe_status));
	memset(pm->gpe_enable, 0, sizeof(pm->gpe_enable));
	loop_timer_cancel(&pm->timer);
	update(pm);
}

static int pm_realize(struct device *dev, struct error *err)
{
	struct pc_pm *pm = container_of(dev, struct pc_pm, dev);

	loop_timer_init(&pm->timer, &dev->machine->loop, LOOP_CLOCK_VM, timer_expired);
	io_region_init(&pm->regs, "acpi-pm", &pm_ops, PC_PM_SIZE);
	io_region_map(dev->machine, &pm->regs, IO_PORT, PC_PM_BASE, 0);
	return 0;
}

static void pm_unrealize(struct device *dev)
{
	struct pc_pm *pm = container_of(dev, struct pc_pm, dev);

	loop_timer_cancel(&pm->timer);
	io_region_unmap(dev->machine, &pm->regs);
}

static const struct device_class pm_class = {
	.name = "acpi-pm",
	.description = "ACPI power management registers",
	.bus = "ISA",
	.internal = true,
	.size = sizeof(struct pc_pm),
	.realize = pm_realize,
	.unrealize = pm_unrealize,
	.reset = pm_reset,
};
DEVICE_REGISTER(pm_class)

struct pc_pm *pm_create(struct machine *m, struct error *err)
{
	struct device *dev = device_create(m, &pm_class, NULL, err);

	return dev ? container_of(dev, struct pc_pm, dev) : NULL;
}

void pm_power_button(struct pc_pm *pm)
{
	pm->status |= STS_PWRBTN;
	update(pm);
}
