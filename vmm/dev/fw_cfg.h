/*
 * The firmware configuration interface at ports 0x510-0x51b: numbered items and named files that
 * firmware and kernels read from the monitor, byte by byte or by DMA (as QEMU's docs/specs/fw_cfg
 * describes it).
 *
 *	fw_cfg_add_file(m, "opt/org.example/greeting", "hello", 5);
 */
#ifndef VMM_DEV_FW_CFG_H
#define VMM_DEV_FW_CFG_H

#include "vmm/util.h"

struct machine;

#define FW_CFG_SIGNATURE 0x00
#define FW_CFG_ID	 0x01
#define FW_CFG_UUID	 0x02
#define FW_CFG_RAM_SIZE	 0x03
#define FW_CFG_NB_CPUS	 0x05
#define FW_CFG_MAX_CPUS	 0x0f
#define FW_CFG_FILE_DIR	 0x19
#define FW_CFG_FILES	 0x20 /* the first file's number */

int fw_cfg_create(struct machine *m, struct error *err);

/** Item @key is these bytes, which are copied. */
void fw_cfg_add_item(struct machine *m, u16 key, const void *bytes, u32 size);

/** -ENOSPC: the directory is full; -EEXIST; -ENAMETOOLONG (55 characters are possible). */
int fw_cfg_add_file(struct machine *m, const char *name, const void *bytes, u32 size);

#endif
