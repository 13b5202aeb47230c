/* What the engine counts, for KVM_GET_STATS_FD: "lite_tlb_fills" and so on. */
#include "engines/lite/lite.h"

#define VCPU(name, field, ...) { name, LITE_OFFSET(field), ##__VA_ARGS__ }
#define VM(name, field, ...)   { name, offsetof(struct lite_vm, field) - offsetof(struct lite_vm, vm), ##__VA_ARGS__ }

const struct engine_stat lite_vcpu_stats[] = {
	VCPU("tlb_fills", count.tlb_fill),
	VCPU("tlb_l2_hits", count.tlb_l2),
	VCPU("tlb_walks", count.tlb_walk),
	VCPU("tlb_short_walks", count.tlb_pde),
	VCPU("flushes_all", count.flush_all),
	VCPU("flushes_pcid", count.flush_pcid),
	VCPU("flushes_page", count.flush_page),
	VCPU("flushes_large_page", count.flush_large),
	VCPU("flushes_writes", count.flush_writes),
	VCPU("flushes_exec", count.flush_exec),
	VCPU("flushes_jumps", count.flush_jumps),
	VCPU("pcid_switches", count.flush_switch),
	VCPU("views_restored", count.flush_restored),
	VCPU("blocks", count.blocks),
	VCPU("blocks_killed", count.blocks_killed),
	VCPU("block_lookups", count.lookups),
	VCPU("emulated", count.slow_ops),
	VCPU("native_slow", count.native_slow),
	VCPU("shootdowns", count.shootdowns),
	VCPU("jit_blocks", count.jit_blocks),
	VCPU("jit_insns", count.jit_insns),
	VCPU("jit_jump_misses", count.jit_jumps),
	VCPU("jit_checked_blocks", count.jit_checked),
	VCPU("jit_stale_blocks", count.jit_stale),
	VCPU("lockstep_blocks", count.lockstep),
	VCPU("text_looks", count.text_looks),
	VCPU("windows_opened", count.window_opened),
	VCPU("windows_closed", count.window_closed),
	VCPU("window_faults", count.window_faults),
	VCPU("window_maps", count.window_maps),
	VCPU("translate_time_ns", count.translate_ticks, STAT_CUMULATIVE, STAT_TICKS),
	{ NULL }
};

const struct engine_stat lite_vm_stats[] = {
	VM("cache_flushes", flush_gen),
	VM("block_bytes", arena_used, STAT_INSTANT, STAT_BYTES),
	VM("jit_bytes", jit_bytes, STAT_INSTANT, STAT_BYTES),
	VM("texts", nr_texts, STAT_INSTANT),
	VM("texts_removed", texts_removed),
	VM("pages_checked", pages_checked),
	VM("pages_settled", pages_settled),
	VM("jit_verified", jit_verified),
	VM("jit_violations", jit_violations),
	{ NULL }
};
