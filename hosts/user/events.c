/* Nobody watches a process from outside: see engines/lite/log.h for what can be watched from inside. */
#include "hosts/host.h"

#define X(name, parameters, names)                                                                                     \
	void host_event_##name parameters                                                                              \
	{                                                                                                              \
	}
HOST_EVENTS(X)

struct host_stats_dir *host_stats_show(struct host_stats_dir *parent, const char *name, struct host_shared *area)
{
	(void)parent;
	(void)name;
	(void)area;
	return NULL;
}

void host_stats_hide(struct host_stats_dir *dir)
{
	(void)dir;
}
