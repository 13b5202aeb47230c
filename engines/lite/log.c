/* See log.h. The trace itself is the host's. */
#include "engines/lite/log.h"

#include "core/stats.h"
#include "hosts/user/vectors.h"

void lite_log(const char *fmt, ...)
{
	/* In the builds of the sanitizers everything that is called may use them, host_trace() too. */
	HOST_KEEP_VECTORS;
	char text[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = host_vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n > 0)
		host_trace(text, n < (int)sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

/* What the client is asked for: kvm_run is filled when the engine returns EXIT_USER. */
static void user_exit(const struct kvm_run *run, char *text, size_t size)
{
	u32 len = run->mmio.len, reason = run->exit_reason; /* the client may change them meanwhile */
	u64 data = 0;

	switch (reason) {
	case KVM_EXIT_IO:
		host_snprintf(text, size, "%s port 0x%x, %u x %u bytes", run->io.direction == KVM_EXIT_IO_IN ? "in" : "out",
			      run->io.port, run->io.count, run->io.size);
		break;
	case KVM_EXIT_MMIO:
		memcpy(&data, run->mmio.data, len < sizeof(data) ? len : sizeof(data));
		if (run->mmio.is_write)
			host_snprintf(text, size, "mmio write 0x%llx, %u bytes, 0x%llx", (unsigned long long)run->mmio.phys_addr, len,
				      (unsigned long long)data);
		else
			host_snprintf(text, size, "mmio read 0x%llx, %u bytes", (unsigned long long)run->mmio.phys_addr, len);
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		host_snprintf(text, size, "%s 0x%x", reason == KVM_EXIT_X86_RDMSR ? "rdmsr" : "wrmsr", run->msr.index);
		break;
	case KVM_EXIT_HYPERCALL:
		host_snprintf(text, size, "hypercall %llu", (unsigned long long)run->hypercall.nr);
		break;
	default:
		host_snprintf(text, size, "reason %u", reason);
	}
}

void lite_log_exit(struct vcpu *vcpu, const struct engine_exit *exit)
{
	const char *name = stats_exit_name(exit->reason);
	char text[96] = "";

	switch (exit->reason) {
	case EXIT_USER:
		if (vcpu->io.error)
			host_snprintf(text, sizeof(text), "error %d", -vcpu->io.error);
		else
			user_exit(vcpu->run, text, sizeof(text));
		break;
	case EXIT_NONE:
		host_snprintf(text, sizeof(text), "requests 0x%llx",
			      (unsigned long long)__atomic_load_n(&vcpu->requests, __ATOMIC_RELAXED));
		break;
	case EXIT_EXCEPTION: host_snprintf(text, sizeof(text), "vector %u", exit->event.vector); break;
	case EXIT_EFAULT: host_snprintf(text, sizeof(text), "gpa 0x%llx", (unsigned long long)exit->fault_gpa); break;
	case EXIT_INTERNAL_ERROR: host_snprintf(text, sizeof(text), "suberror %llu", (unsigned long long)exit->suberror); break;
	default: break;
	}
	lite_log("vcpu %u exit %s, rip 0x%llx%s%s\n", vcpu->id, name ? name : "unknown", (unsigned long long)vcpu->x86.rip,
		 *text ? ": " : "", text);
}
