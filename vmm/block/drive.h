/*
 * Named disk images: what -drive and -blockdev open and a device's drive= takes.
 *
 *	image = drive_claim(m, b->drive, err);	by id or node name; one device a drive
 *	...
 *	drive_release(m, image);
 */
#ifndef VMM_BLOCK_DRIVE_H
#define VMM_BLOCK_DRIVE_H

#include "vmm/block/block.h"
#include "vmm/opts.h"

struct machine;

/* What the guest gets when the host fails: by QEMU's names. */
enum drive_error_action {
	DRIVE_ERROR_REPORT, /* an I/O error */
	DRIVE_ERROR_IGNORE, /* nothing: as if it had worked */
};

/** Opens the image that "-drive @text" describes and, with if=virtio, queues its device. */
int drive_add(struct machine *m, const char *text, struct error *err);
/** Opens a node that "-blockdev @text" describes. */
int drive_add_blockdev(struct machine *m, const char *text, struct error *err);

/** -ENOENT (NULL): no such drive; -EBUSY: another device has it. Text set. */
struct block_image *drive_claim(struct machine *m, const char *name, struct error *err);
void drive_release(struct machine *m, struct block_image *image);
enum drive_error_action drive_on_error(const struct block_image *image, bool write);

/** Closes all. */
void drive_close_all(struct machine *m);

#endif
