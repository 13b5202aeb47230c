/* Words, for the kernel's log. */
#include "hosts/kernel/linux.h"

#include <linux/printk.h>
#include <linux/ratelimit.h>

void host_log(enum host_log_level level, const char *fmt, ...)
{
	static DEFINE_RATELIMIT_STATE(limit, HZ, 20);
	static const char *const prefix[] = { KERN_ERR, KERN_WARNING, KERN_INFO, KERN_DEBUG };
	struct va_format text = { .fmt = fmt };
	va_list ap;

	if (!__ratelimit(&limit))
		return;
	va_start(ap, fmt);
	text.va = &ap;
	printk("%s%pV\n", prefix[level], &text);
	va_end(ap);
}

void host_trace(const char *text, size_t len)
{
	printk(KERN_DEBUG "%.*s", (int)len, text);
}

int host_vsnprintf(char *buf, size_t size, const char *fmt, va_list ap)
{
	return vsnprintf(buf, size, fmt, ap);
}

u32 host_client_pid(void)
{
	return task_tgid_nr(current);
}
