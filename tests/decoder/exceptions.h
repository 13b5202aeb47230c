/*
 * Where Zydis 4.0 and the manuals differ, or where the two describe one thing differently; each as
 * narrow as it can be. Included by zydis.c alone.
 */

/* Zydis decodes some instructions of the Xeon Phi coprocessor (KNC), which never was a PC's. */
static bool knc(const struct both *b, const char *why)
{
	if (!b->err || !ZYAN_SUCCESS(b->status))
		return false;
	if (b->zinsn.encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX)
		return true;
	return b->insn.encoding == INSN_ENC_VEX &&
	       (b->zinsn.meta.isa_set == ZYDIS_ISA_SET_KNCE || b->zinsn.meta.isa_set == ZYDIS_ISA_SET_KNCJKBR ||
		b->zinsn.meta.isa_set == ZYDIS_ISA_SET_KNCSTREAM ||
		b->zinsn.meta.isa_set == ZYDIS_ISA_SET_KNCV || b->zinsn.meta.isa_set == ZYDIS_ISA_SET_KNC_MISC);
}

/* VIA PadLock (0F A6, 0F A7): undefined on the processors we stand for. */
static bool padlock(const struct both *b, const char *why)
{
	return b->err && ZYAN_SUCCESS(b->status) && b->insn.map == INSN_MAP_0F && (b->insn.opcode & 0xfe) == 0xa6;
}

/* EXTRQ and INSERTQ take from or put into their destination (APM 4); Zydis says it is only written. */
static bool sse4a_destination(const struct both *b, const char *why)
{
	return (b->insn.mnemonic == MN_EXTRQ || b->insn.mnemonic == MN_INSERTQ) &&
	       !strcmp(why, "register access");
}

/* The operands of a NOP are not accessed, whatever their size (SDM 2B, NOP); Zydis lists some and reads them. */
static bool nop_operands(const struct both *b, const char *why)
{
	return b->insn.mnemonic == MN_NOP && b->insn.has_modrm && b->insn.map == INSN_MAP_0F &&
	       (!strcmp(why, "register access") || !strcmp(why, "register size") ||
		!strcmp(why, "memory size") || !strcmp(why, "register number") ||
		!strcmp(why, "more operands than Zydis"));
}

/*
 * mod = 0, SIB.base = 5: no base, a disp32, and REX.B is not looked at (SDM 2A table 2-5). With 32-bit
 * addresses in 64-bit mode Zydis 4.0 takes the disp32 but reports R13D as the base, too.
 */
static bool sib_r13d(const struct both *b, const char *why)
{
	return !strcmp(why, "base") && b->mode == MODE_64 && b->insn.addrsize == 4 && b->insn.mod == 0 &&
	       b->insn.has_sib && (b->insn.sib & 7) == 5 && b->insn.mem.base == INSN_REG_NONE &&
	       (b->insn.rex & 1);
}

/* 66 63: MOVSXD r16, r/m16 (SDM 2B); Zydis reads 32 bits. */
static bool movsxd16(const struct both *b, const char *why)
{
	return b->insn.mnemonic == MN_MOVSXD && b->insn.opsize == 2 &&
	       (!strcmp(why, "memory size") || !strcmp(why, "register size"));
}

/* LLWPCB, LWPINS, LWPVAL read their register (APM 3); Zydis says written. */
static bool lwp_register(const struct both *b, const char *why)
{
	return (b->insn.mnemonic == MN_LLWPCB || b->insn.mnemonic == MN_LWPINS ||
		b->insn.mnemonic == MN_LWPVAL) && !strcmp(why, "register access");
}

/* 3DNow! conversions and approximations only write their destination (APM 3); Zydis has one rule for all. */
static bool now3d_destination(const struct both *b, const char *why)
{
	return b->insn.encoding == INSN_ENC_3DNOW && b->insn.op[0].access == OPA_WRITE &&
	       !strcmp(why, "register access");
}

/* FP16 conversions with general registers: outside 64-bit mode EVEX.W is ignored (SDM 2C, VCVTSI2SH). */
static bool fp16_w(const struct both *b, const char *why)
{
	return !b->err && !ZYAN_SUCCESS(b->status) && b->mode != MODE_64 && b->insn.w &&
	       b->insn.encoding == INSN_ENC_EVEX && b->insn.map == INSN_MAP_5 &&
	       (b->insn.op[0].kind == OPK_GPR || b->insn.mnemonic == MN_VCVTSI2SH ||
		b->insn.mnemonic == MN_VCVTUSI2SH);
}

/* VP2INTERSECT writes the pair of masks that the named one is in (SDM 2C): ours is the even one. */
static bool mask_pair(const struct both *b, const char *why)
{
	return (b->insn.mnemonic == MN_VP2INTERSECTD || b->insn.mnemonic == MN_VP2INTERSECTQ) &&
	       !strcmp(why, "register number") &&
	       b->insn.op[0].reg == (ZydisRegisterGetId(b->zop[0].reg.value) & ~1);
}

/* A source of zero leaves the destination alone: it is read as well. */
static bool bit_scan(const struct both *b, const char *why)
{
	return (b->insn.mnemonic == MN_BSF || b->insn.mnemonic == MN_BSR) && !strcmp(why, "register access");
}

/* The FP16 compares write a mask as the others do; Zydis says read and written for these only. */
static bool fp16_compare(const struct both *b, const char *why)
{
	return (b->insn.mnemonic == MN_VCMPPH || b->insn.mnemonic == MN_VCMPSH ||
		b->insn.mnemonic == MN_VFPCLASSPH || b->insn.mnemonic == MN_VFPCLASSSH) &&
	       !strcmp(why, "register access") && b->insn.op[0].access == OPA_WRITE;
}

/* SGX leaves have no memory operand that an address size could matter to; Zydis fixes it. */
static bool sgx_address_size(const struct both *b, const char *why)
{
	return (b->insn.mnemonic == MN_ENCLS || b->insn.mnemonic == MN_ENCLU ||
		b->insn.mnemonic == MN_ENCLV) && !strcmp(why, "address size");
}

/* SENDUIPI r64 (SDM 2B), REX.W or not. */
static bool senduipi(const struct both *b, const char *why)
{
	return b->insn.mnemonic == MN_SENDUIPI && !strcmp(why, "register size");
}

/* VCVTSI2SD of 32 bits cannot round, and EVEX.b is ignored; W is, too, outside 64-bit mode (SDM 2C). */
static bool si2sd_w(const struct both *b, const char *why)
{
	return !b->err && !ZYAN_SUCCESS(b->status) && b->mode != MODE_64 && b->insn.w && b->insn.b &&
	       b->insn.encoding == INSN_ENC_EVEX &&
	       (b->insn.mnemonic == MN_VCVTSI2SD || b->insn.mnemonic == MN_VCVTUSI2SD);
}

/* 3E before an indirect branch is NOTRACK, but outside 64-bit mode it is an override of DS as ever (SDM 1 17.3.3). */
static bool notrack(const struct both *b, const char *why)
{
	return (b->insn.mnemonic == MN_JMP_NEAR || b->insn.mnemonic == MN_CALL_NEAR) &&
	       b->mode != MODE_64 && b->insn.seg_override == SEG_DS &&
	       (b->zinsn.attributes & ZYDIS_ATTRIB_HAS_NOTRACK) && !strcmp(why, "segment");
}

/* Zydis 4.0 says WBINVD for F3 0F 09, with its mode for WBNOINVD enabled or not. */
static bool wbnoinvd(const struct both *b, const char *why)
{
	return b->insn.mnemonic == MN_WBNOINVD && b->zinsn.mnemonic == ZYDIS_MNEMONIC_WBINVD;
}

/* F3 90 with REX.B: processors exchange R8 and rAX; the F3 means nothing there. Zydis says PAUSE. */
static bool pause_rexb(const struct both *b, const char *why)
{
	return b->insn.mnemonic == MN_XCHG && b->insn.map == INSN_MAP_1BYTE && b->insn.opcode == 0x90 &&
	       b->zinsn.mnemonic == ZYDIS_MNEMONIC_PAUSE;
}

static const struct {
	bool (*applies)(const struct both *b, const char *why);
	const char *reason;
} exceptions[] = {
	{ nop_operands, "NOP: operands are not accessed" },
	{ bit_scan, "BSF, BSR: the destination may be kept" },
	{ sib_r13d, "SIB without a base is R13D for Zydis with address size 32 and REX.B" },
	{ movsxd16, "MOVSXD r16, r/m16" },
	{ knc, "Xeon Phi (KNC) instructions" },
	{ padlock, "VIA PadLock instructions" },
	{ sse4a_destination, "EXTRQ, INSERTQ: the destination is read as well" },
	{ lwp_register, "LLWPCB, LWPINS, LWPVAL: the register is read" },
	{ now3d_destination, "3DNow! conversions: the destination is only written" },
	{ fp16_w, "FP16 conversions of general registers: W is ignored outside 64-bit mode" },
	{ fp16_compare, "FP16 compares: the mask is only written" },
	{ mask_pair, "VP2INTERSECT: the even mask of the pair" },
	{ sgx_address_size, "SGX: address size" },
	{ si2sd_w, "VCVTSI2SD: W and b are ignored outside 64-bit mode" },
	{ notrack, "NOTRACK: 3E is still an override of DS" },
	{ wbnoinvd, "WBNOINVD is WBINVD for Zydis" },
	{ senduipi, "SENDUIPI r64" },
	{ pause_rexb, "F3 90 with REX.B is XCHG" },
};
