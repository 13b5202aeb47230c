/* Files: anonymous inodes whose operations are core's. */
#include "hosts/kernel/linux.h"
#include "hosts/kernel/compat.h"

#include <linux/anon_inodes.h>
#include <linux/compat.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>

static struct host_file *of(struct file *filp)
{
	return filp->private_data;
}

static long file_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	return of(filp)->ops->ioctl(of(filp), cmd, arg);
}

/* The structures of the API are the same for 32-bit clients. */
static long file_compat_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	return file_ioctl(filp, cmd, (u32)arg);
}

static ssize_t file_read(struct file *filp, char __user *buf, size_t len, loff_t *pos)
{
	struct host_file *file = of(filp);
	ssize_t n;

	if (!file->ops->read)
		return -EINVAL;
	n = file->ops->read(file, (u64)buf, len, *pos);
	if (n > 0)
		*pos += n;
	return n;
}

static vm_fault_t map_fault(struct vm_fault *vmf)
{
	struct host_file *file = of(vmf->vma->vm_file);
	struct host_shared *shared;
	u64 index;

	shared = file->ops->mmap(file, vmf->pgoff, &index);
	if (!shared)
		return VM_FAULT_SIGBUS;
	vmf->page = vmalloc_to_page(shared->addr + index * PAGE_SIZE);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct map_ops = { .fault = map_fault };

static int file_mmap(struct file *filp, struct vm_area_struct *vma)
{
	u64 index, shared_from = of(filp)->ops->shared_from;

	if (!of(filp)->ops->mmap)
		return -ENODEV;
	if (shared_from && vma->vm_pgoff + vma_pages(vma) > shared_from && (!(vma->vm_flags & VM_SHARED) || (vma->vm_flags & VM_EXEC)))
		return -EINVAL;
	if (!of(filp)->ops->mmap(of(filp), vma->vm_pgoff, &index))
		return -EINVAL;
	vm_flags_set(vma, VM_DONTDUMP);
	vma->vm_ops = &map_ops;
	return 0;
}

static int file_release(struct inode *inode, struct file *filp)
{
	of(filp)->ops->release(of(filp));
	return 0;
}

static const struct file_operations file_ops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = file_ioctl,
	.compat_ioctl = file_compat_ioctl,
	.mmap = file_mmap,
	.release = file_release,
	.llseek = noop_llseek,
};

/* A descriptor that can be read has a position to read from. */
static const struct file_operations readable_ops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = file_ioctl,
	.compat_ioctl = file_compat_ioctl,
	.read = file_read,
	.release = file_release,
	.llseek = noop_llseek,
};

int host_file_install(struct host_file *file)
{
	struct file *filp;
	int fd;

	if (!file->ops->read)
		return anon_inode_getfd(file->ops->name, &file_ops, file, O_RDWR | O_CLOEXEC);
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	filp = anon_inode_getfile(file->ops->name, &readable_ops, file, O_RDONLY);
	if (IS_ERR(filp)) {
		put_unused_fd(fd);
		return PTR_ERR(filp);
	}
	filp->f_mode |= FMODE_PREAD;
	fd_install(fd, filp);
	return fd;
}
