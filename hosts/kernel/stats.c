/* Statistics as files of debugfs: /sys/kernel/debug/kvm/PID-FD/NAME for a VM, .../vcpuN/NAME for its vCPUs. */
#include "hosts/kernel/linux.h"

#include <linux/debugfs.h>
#include <linux/kvm.h>

static struct dentry *root;

void host_stats_open(void)
{
	root = debugfs_create_dir("kvm", NULL);
}

void host_stats_close(void)
{
	debugfs_remove_recursive(root);
}

struct host_stats_dir *host_stats_show(struct host_stats_dir *parent, const char *name, struct host_shared *area)
{
	struct dentry *above = parent ? (struct dentry *)parent : root, *dir = debugfs_lookup(name, above);
	const struct kvm_stats_header *header = area->addr;
	u32 i;

	/* A VM whose descriptor's number is another's by now still lives through its vCPUs' */
	if (dir) {
		dput(dir);
		return NULL;
	}
	dir = debugfs_create_dir(name, above);
	if (IS_ERR(dir))
		return NULL;
	for (i = 0; i < header->num_desc; i++) {
		const struct kvm_stats_desc *desc =
			area->addr + header->desc_offset + i * (sizeof(*desc) + header->name_size);

		if (desc->size == 1)
			debugfs_create_u64(desc->name, 0444, dir, area->addr + header->data_offset + desc->offset);
	}
	return (struct host_stats_dir *)dir;
}

void host_stats_hide(struct host_stats_dir *dir)
{
	debugfs_remove_recursive((struct dentry *)dir);
}
