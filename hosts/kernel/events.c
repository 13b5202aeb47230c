/* The events of hosts/host.h as Linux's trace events: while nobody listens each is a call, a no-op and a return. */
#include "hosts/kernel/linux.h"

#define CREATE_TRACE_POINTS
#include "hosts/kernel/events.h"

#define X(name, parameters, names)                                                                                     \
	void host_event_##name parameters                                                                              \
	{                                                                                                              \
		trace_kvm_##name names;                                                                                \
	}
HOST_EVENTS(X)
