/*
 * trine-stat: what the virtual machines of this host are doing, by the counters of KVM_GET_STATS_FD.
 *
 *	trine-stat			every VM once: totals since it began
 *	trine-stat -i 2 -p 4711		process 4711 every 2 seconds: what happened in them, until it ends
 *
 * A VM on lite keeps its counters in a memfd of its process (core/stats.c), so they are read there: no socket, no
 * cooperation, any client of libtrine, QEMU under the shim included. VMs of the kernel's KVM show theirs under
 * /sys/kernel/debug/kvm, one file a counter.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DEBUGFS	      "/sys/kernel/debug/kvm"
#define MAX_COUNTERS  256
#define MAX_NAME      64
#define MAX_SECONDS   86400

/* The counters of one VM, summed over its vCPUs. */
struct vm_counters {
	pid_t pid;
	char where[16];	/* "lite" or "kvm" */
	unsigned vcpus;
	unsigned count;
	struct {
		char name[MAX_NAME];
		uint64_t value;
		uint32_t flags; /* KVM_STATS_* */
	} counter[MAX_COUNTERS];
	struct vm_counters *next;
};

/* Adds @value to counter @name of @vm, whose type and unit are @flags. More than MAX_COUNTERS names are not kept. */
static void counter_add(struct vm_counters *vm, const char *name, uint64_t value, uint32_t flags)
{
	unsigned i;

	for (i = 0; i < vm->count; i++) {
		if (!strcmp(vm->counter[i].name, name)) {
			vm->counter[i].value += value;
			return;
		}
	}
	if (vm->count == MAX_COUNTERS)
		return;
	snprintf(vm->counter[i].name, MAX_NAME, "%s", name);
	vm->counter[i].value = value;
	vm->counter[i].flags = flags;
	vm->count++;
}

static struct vm_counters *vm_find(struct vm_counters **list, pid_t pid, const char *where)
{
	struct vm_counters **p, *vm;

	for (p = list; *p; p = &(*p)->next)
		if ((*p)->pid == pid && !strcmp((*p)->where, where))
			return *p;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return NULL;
	vm->pid = pid;
	snprintf(vm->where, sizeof(vm->where), "%s", where);
	*p = vm;
	return vm;
}

static void list_free(struct vm_counters *list)
{
	while (list) {
		struct vm_counters *next = list->next;

		free(list);
		list = next;
	}
}

/* ---- lite: memfds of the process ------------------------------------------------------------------------------ */

/*
 * Reads the statistics behind @fd into @list. The other process wrote every offset, so each is checked; what makes no sense is
 * another kind of memfd and passed over. Returns false only without memory.
 */
static bool read_area(int fd, struct vm_counters **list)
{
	struct kvm_stats_header header;
	struct vm_counters *vm;
	char id[128];
	struct stat st;
	unsigned i, pid, length, vcpu;

	if (fstat(fd, &st) || pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return true;
	if (!header.num_desc || header.num_desc > MAX_COUNTERS || header.name_size < 8 || header.name_size > MAX_NAME ||
	    header.id_offset > st.st_size || header.desc_offset > st.st_size || header.data_offset > st.st_size)
		return true;
	memset(id, 0, sizeof(id));
	if (pread(fd, id, header.name_size, header.id_offset) != (ssize_t)header.name_size)
		return true;
	if (sscanf(id, "kvm-%u%n", &pid, &length) != 1)
		return true;
	if (id[length] && sscanf(id + length, "/vcpu-%u", &vcpu) != 1)
		return true;
	vm = vm_find(list, pid, "lite");
	if (!vm)
		return false;
	vm->vcpus += id[length] != 0;
	for (i = 0; i < header.num_desc; i++) {
		struct {
			struct kvm_stats_desc desc;
			char name[MAX_NAME];
		} d = { 0 };
		uint64_t value;

		if (pread(fd, &d, sizeof(d.desc) + header.name_size,
			  header.desc_offset + i * (sizeof(d.desc) + header.name_size)) !=
		    (ssize_t)(sizeof(d.desc) + header.name_size))
			return true;
		d.name[header.name_size - 1] = 0;
		if (pread(fd, &value, sizeof(value), (off_t)header.data_offset + d.desc.offset) != sizeof(value))
			return true;
		counter_add(vm, d.name, value, d.desc.flags);
	}
	return true;
}

/* Looks through the descriptors of process @pid. One memfd may be open twice: each inode counts once. */
static bool read_process(pid_t pid, struct vm_counters **list)
{
	static const char marker[] = "/memfd:trine";
	ino_t seen[1024];
	unsigned nr_seen = 0, i;
	char path[64], target[64];
	struct dirent *entry;
	bool good = true;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return true;
	while (good && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		struct stat st;
		int fd;

		if (n < 0)
			continue;
		target[n] = 0;
		if (strncmp(target, marker, sizeof(marker) - 1))
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (!fstat(fd, &st)) {
			for (i = 0; i < nr_seen && seen[i] != st.st_ino; i++)
				;
			if (i == nr_seen) {
				if (nr_seen < sizeof(seen) / sizeof(seen[0]))
					seen[nr_seen++] = st.st_ino;
				good = read_area(fd, list);
			}
		}
		close(fd);
	}
	closedir(dir);
	return good;
}

/* ---- the kernel's KVM: debugfs -------------------------------------------------------------------------------- */

static bool read_file_u64(int dir, const char *name, uint64_t *value)
{
	char text[32];
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	return sscanf(text, "%" SCNu64, value) == 1;
}

/* One folder a VM, PID-FD, with a file a counter (summed over its vCPUs) and a folder a vCPU. */
static bool read_debugfs(pid_t only, struct vm_counters **list)
{
	DIR *top = opendir(DEBUGFS);
	struct dirent *entry;
	bool good = true;

	if (!top)
		return true;
	while (good && (entry = readdir(top))) {
		struct vm_counters *vm;
		struct dirent *file;
		unsigned pid, fd;
		DIR *dir;
		int n;

		if (sscanf(entry->d_name, "%u-%u", &pid, &fd) != 2 || (only && only != (pid_t)pid))
			continue;
		n = openat(dirfd(top), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		dir = n < 0 ? NULL : fdopendir(n);
		if (!dir)
			continue;
		vm = vm_find(list, pid, "kvm");
		good = vm;
		while (good && (file = readdir(dir))) {
			uint64_t value;

			if (!strncmp(file->d_name, "vcpu", 4))
				vm->vcpus++;
			else if (file->d_name[0] != '.' && read_file_u64(dirfd(dir), file->d_name, &value))
				counter_add(vm, file->d_name, value, 0);
		}
		closedir(dir);
	}
	closedir(top);
	return good;
}

/* ---- printing ------------------------------------------------------------------------------------------------- */

/* Every VM there is, or process @only's. NULL with *@good false: no memory. */
static struct vm_counters *take(pid_t only, bool *good)
{
	struct vm_counters *list = NULL;
	struct dirent *entry;
	DIR *proc;

	*good = read_debugfs(only, &list);
	if (only) {
		*good = *good && read_process(only, &list);
		return list;
	}
	proc = opendir("/proc");
	while (proc && *good && (entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]))
			*good = read_process(atoi(entry->d_name), &list);
	if (proc)
		closedir(proc);
	return list;
}

static uint64_t value_in(const struct vm_counters *vm, const char *name)
{
	unsigned i;

	for (i = 0; vm && i < vm->count; i++)
		if (!strcmp(vm->counter[i].name, name))
			return vm->counter[i].value;
	return 0;
}

/* How fast a counter goes: time, which is in nanoseconds, as a share of one CPU's. What is not cumulative has no rate. */
static void print_rate(uint32_t flags, uint64_t more, double seconds)
{
	if ((flags & KVM_STATS_TYPE_MASK) != KVM_STATS_TYPE_CUMULATIVE)
		return;
	if ((flags & KVM_STATS_UNIT_MASK) == KVM_STATS_UNIT_SECONDS)
		printf(" %14.1f%%", (double)more / seconds / 1e7);
	else
		printf(" %14.1f/s", (double)more / seconds);
}

/* @old: the former reading, NULL for totals. @seconds: between the two. */
static void print(const struct vm_counters *list, struct vm_counters *old, double seconds)
{
	unsigned i;

	for (; list; list = list->next) {
		struct vm_counters *before = old;

		while (before && (before->pid != list->pid || strcmp(before->where, list->where)))
			before = before->next;
		printf("pid %d, %s, %u vCPU%s\n", list->pid, list->where, list->vcpus, list->vcpus == 1 ? "" : "s");
		for (i = 0; i < list->count; i++) {
			uint64_t value = list->counter[i].value, was = value_in(before, list->counter[i].name);

			if (!value)
				continue;
			printf("  %-24s %16" PRIu64, list->counter[i].name, value);
			if (before)
				print_rate(list->counter[i].flags, value >= was ? value - was : 0, seconds);
			putchar('\n');
		}
	}
	fflush(stdout);
}

static bool number(const char *text, long max, long *value)
{
	char *end;

	errno = 0;
	*value = strtol(text, &end, 10);
	return !errno && end != text && !*end && *value > 0 && *value <= max;
}

static void usage(FILE *to)
{
	fprintf(to, "usage: trine-stat [-p PID] [-i SECONDS [-n TIMES]]\n"
		    "  -p PID       the virtual machine of this process only\n"
		    "  -i SECONDS   again every SECONDS, with rates, until it ends\n"
		    "  -n TIMES     with -i: so many times\n"
		    "  -h, -V       this text, the version\n");
}

int main(int argc, char **argv)
{
	struct vm_counters *old = NULL, *now;
	long pid = 0, interval = 0, times = 0;
	struct timespec last, this;
	bool good;
	int c;

	while ((c = getopt(argc, argv, "p:i:n:hV")) != -1) {
		long *value = c == 'p' ? &pid : c == 'i' ? &interval : &times;

		switch (c) {
		case 'p':
		case 'i':
		case 'n':
			if (!number(optarg, c == 'i' ? MAX_SECONDS : INT32_MAX, value)) {
				fprintf(stderr, "trine-stat: -%c %s: not a number from 1 to %d\n", c, optarg,
					c == 'i' ? MAX_SECONDS : INT32_MAX);
				return 1;
			}
			break;
		case 'h': usage(stdout); return 0;
		case 'V': puts("trine-stat " TRINE_VERSION); return 0;
		default: usage(stderr); return 1;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "trine-stat: %s: what is this?\n", argv[optind]);
		return 1;
	}
	for (;;) {
		now = take(pid, &good);
		clock_gettime(CLOCK_MONOTONIC, &this);
		if (!good) {
			fprintf(stderr, "trine-stat: out of memory\n");
			return 1;
		}
		if (!now) {
			if (old)
				break; /* it has ended */
			if (pid)
				fprintf(stderr, "trine-stat: process %ld has no virtual machine that can be seen\n", pid);
			else
				fprintf(stderr, "trine-stat: no virtual machine can be seen\n");
			return 1;
		}
		print(now, old, old ? this.tv_sec - last.tv_sec + (this.tv_nsec - last.tv_nsec) / 1e9 : 1);
		list_free(old);
		old = now;
		last = this;
		if (!interval || (times && !--times))
			break;
		sleep(interval);
	}
	list_free(old);
	return 0;
}
