/* Allocations that fail because a test wants to see what comes of it. */
#include "hosts/host.h"

int host_fail_alloc; /* (a) */

bool host_alloc_fails(void)
{
	if (likely(__atomic_load_n(&host_fail_alloc, __ATOMIC_RELAXED) <= 0))
		return false;
	/* With several at it some do not count, and none comes twice */
	return __atomic_fetch_sub(&host_fail_alloc, 1, __ATOMIC_RELAXED) == 1;
}
