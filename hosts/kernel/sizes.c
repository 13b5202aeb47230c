/* Not linked: how many words Linux's structures take in this configuration, and the like, read from the assembly into host_sizes.h. */
#define HOST_COUNTS_SIZES
#include "hosts/kernel/linux.h"

#include <linux/kbuild.h>
#include <asm/extable_fixup_types.h>

#define WORDS(name, type) DEFINE(HOST_##name##_WORDS, DIV_ROUND_UP(sizeof(type), sizeof(long)))

int main(void);

int main(void)
{
	WORDS(MUTEX, struct mutex);
	WORDS(SPINLOCK, spinlock_t);
	WORDS(RWLOCK, rwlock_t);
	WORDS(WAIT, struct rcuwait);
	WORDS(TIMER, struct hrtimer);
	WORDS(SCHED, struct sched_inside);
	WORDS(MM_WATCH, struct mm_watch_inside);
	WORDS(SHRINKER, struct shrinker);
	DEFINE(HOST_EX_TYPE, EX_TYPE_DEFAULT);
	return 0;
}
