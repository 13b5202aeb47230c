/*
 * Sleepable read-copy-update. A reader claims a slot - its own cache line, nearly always the one it had last time - and writes
 * the current epoch there; a writer raises the epoch and waits until no slot holds an older one.
 *
 * A reader that read the epoch just before it was raised, and claims its slot after the writer looked, holds too old a number. It
 * is harmless: it loads pointers after it claimed the slot, so it sees what was published before the epoch was raised, and the next
 * writer waits for it.
 */
#include "hosts/host.h"

#define SRCU_SLOTS 1024

struct host_srcu_slot {
	u64 epoch; /* (a) 0: free */
} __attribute__((aligned(64)));

int host_srcu_init(struct host_srcu *s)
{
	s->slots = host_zalloc_pages(SRCU_SLOTS * sizeof(*s->slots));
	if (!s->slots)
		return -ENOMEM;
	s->epoch = 1;
	s->high = 0;
	return 0;
}

void host_srcu_destroy(struct host_srcu *s)
{
	host_free_pages(s->slots, SRCU_SLOTS * sizeof(*s->slots));
}

int host_srcu_read_lock(struct host_srcu *s)
{
	unsigned i, high;

	for (i = host_thread_hint() % (SRCU_SLOTS / 4);; i = (i + 1) % SRCU_SLOTS) {
		u64 epoch = __atomic_load_n(&s->epoch, __ATOMIC_SEQ_CST), free = 0;

		high = __atomic_load_n(&s->high, __ATOMIC_SEQ_CST);
		while (unlikely(high <= i) &&
		       !__atomic_compare_exchange_n(&s->high, &high, i + 1, false, __ATOMIC_SEQ_CST,
						    __ATOMIC_SEQ_CST))
			;
		if (likely(__atomic_compare_exchange_n(&s->slots[i].epoch, &free, epoch, false, __ATOMIC_SEQ_CST,
						       __ATOMIC_SEQ_CST)))
			return (int)i;
	}
}

void host_srcu_read_unlock(struct host_srcu *s, int idx)
{
	__atomic_store_n(&s->slots[idx].epoch, 0, __ATOMIC_RELEASE);
}

u64 host_srcu_begin(struct host_srcu *s)
{
	return __atomic_add_fetch(&s->epoch, 1, __ATOMIC_SEQ_CST);
}

void host_srcu_wait(struct host_srcu *s, u64 ticket)
{
	unsigned i, high = __atomic_load_n(&s->high, __ATOMIC_SEQ_CST);

	for (i = 0; i < high; i++) {
		unsigned round = 0;
		u64 epoch;

		while ((epoch = __atomic_load_n(&s->slots[i].epoch, __ATOMIC_SEQ_CST)) && epoch < ticket)
			host_backoff(round++);
		host_cond_resched();
	}
}

void host_srcu_synchronize(struct host_srcu *s)
{
	host_srcu_wait(s, host_srcu_begin(s));
}
