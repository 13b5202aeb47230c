/*
 * Which handler serves which mnemonic. What is not listed is undefined to a guest: it raises #UD,
 * as the instructions of extensions that CPUID does not show.
 */
#include "core/x86/emul/emul_priv.h"

#define H(name, handler) [MN_##name] = { .fn = emul_##handler }
#define HF(name, handler, feat) \
	[MN_##name] = { .fn = emul_##handler, .feature = X86_FEATURE_##feat }
#define HOWN(name, handler) [MN_##name] = { .fn = emul_##handler, .check = CHECK_OWN }
#define HFOWN(name, handler, feat) \
	[MN_##name] = { .fn = emul_##handler, .feature = X86_FEATURE_##feat, .check = CHECK_OWN }
#define X87(name) [MN_##name] = { .fn = emul_native }

/* clang-format off */
const struct emul_entry emul_table[MN_SIMD_FIRST] = {
	/* Integer arithmetic and logic */
	H(ADD, add), H(OR, or), H(ADC, adc), H(SBB, sbb), H(AND, and), H(SUB, sub), H(XOR, xor), H(CMP, cmp),
	H(TEST, test), H(NOT, not), H(NEG, neg), H(MUL, mul), H(IMUL, imul), H(DIV, div), H(IDIV, idiv), H(INC, inc),
	H(DEC, dec), H(ROL, rol), H(ROR, ror), H(RCL, rcl), H(RCR, rcr), H(SHL, shl), H(SHR, shr), H(SAR, sar),
	H(SHLD, shld), H(SHRD, shrd), H(BT, bt), H(BTS, bts), H(BTR, btr), H(BTC, btc), H(BSF, bsf), H(BSR, bsr),
	H(BSWAP, bswap), H(XADD, xadd), H(CMPXCHG, cmpxchg), H(CMPXCHG8B, cmpxchg8b),
	HF(CMPXCHG16B, cmpxchg16b, CX16), H(XCHG, xchg), HF(POPCNT, popcnt, POPCNT), H(LZCNT, lzcnt),
	H(TZCNT, tzcnt), HF(ADCX, adcx, ADX), HF(ADOX, adox, ADX), HF(CRC32, crc32, SSE42), HF(MOVBE, movbe, MOVBE),
	HF(ANDN, andn, BMI1), HF(BEXTR, bextr, BMI1), HF(BLSI, blsi, BMI1), HF(BLSMSK, blsmsk, BMI1),
	HF(BLSR, blsr, BMI1), HF(BZHI, bzhi, BMI2), HF(MULX, mulx, BMI2), HF(PDEP, pdep, BMI2), HF(PEXT, pext, BMI2),
	HF(RORX, rorx, BMI2), HF(SARX, sarx, BMI2), HF(SHLX, shlx, BMI2), HF(SHRX, shrx, BMI2), H(DAA, daa),
	H(DAS, das), H(AAA, aaa), H(AAS, aas), H(AAM, aam), H(AAD, aad),

	/* Data movement */
	H(MOV, mov), H(MOVZX, mov), H(MOVSX, movsx), H(MOVSXD, movsx), H(LEA, lea), H(PUSH, push_insn),
	H(POP, pop_insn), H(PUSHA, pusha), H(POPA, popa), H(PUSHF, pushf), H(POPF, popf), H(ENTER, enter),
	H(LEAVE, leave), H(CBW, cbw), H(CWD, cwd), H(XLAT, xlat), H(SALC, salc), H(LAHF, lahf), H(SAHF, sahf),
	H(CMOVCC, cmovcc), H(SETCC, setcc), H(MOVNTI, mov), HF(MOVDIRI, mov, MOVDIRI),
	HF(MOVDIR64B, movdir64b, MOVDIR64B),

	/* Strings and ports */
	H(MOVS, movs), H(CMPS, cmps), H(STOS, stos), H(LODS, lods), H(SCAS, scas), H(INS, ins), H(OUTS, outs),
	H(IN, in_port), H(OUT, out_port),

	/* Flags */
	H(CLC, clc), H(STC, stc), H(CMC, cmc), H(CLD, cld), H(STD, std), H(CLI, cli), H(STI, sti),
	HFOWN(CLAC, clac, SMAP), HFOWN(STAC, stac, SMAP),

	/* Branches */
	H(JCC, jcc), H(JCXZ, jcxz), H(LOOP, loop), H(LOOPE, loop), H(LOOPNE, loop), H(JMP_NEAR, jmp_near),
	H(JMP_FAR, jmp_far), H(CALL_NEAR, call_near), H(CALL_FAR, call_far), H(RET_NEAR, ret_near),
	H(RET_FAR, ret_far), H(IRET, iret), H(INT, int), H(INT3, int3), H(INT1, int1), H(INTO, into), H(BOUND, bound),
	H(UD0, ud), H(UD1, ud), H(UD2, ud),

	/* Segments and descriptor tables */
	H(MOV_SREG, mov_sreg), H(PUSH_SREG, push_sreg), H(POP_SREG, pop_sreg), H(LES, load_far), H(LDS, load_far),
	H(LSS, load_far), H(LFS, load_far), H(LGS, load_far), H(ARPL, arpl), H(LAR, lar), H(LSL, lsl), H(VERR, verr),
	H(VERW, verr), H(SLDT, sldt), H(STR, str), H(LLDT, lldt), H(LTR, ltr), H(SGDT, sgdt), H(SIDT, sidt),
	H(LGDT, lgdt), H(LIDT, lidt), H(SMSW, smsw), H(LMSW, lmsw), H(RDFSBASE, rdbase), H(RDGSBASE, rdbase),
	H(WRFSBASE, wrbase), H(WRGSBASE, wrbase), H(SWAPGS, swapgs),

	/* System */
	H(MOV_CR, mov_cr), HOWN(MOV_DR, mov_dr), H(CLTS, clts), H(HLT, hlt), H(INVD, wbinvd), H(WBINVD, wbinvd),
	HF(WBNOINVD, wbinvd, WBNOINVD), H(INVLPG, invlpg), HFOWN(INVPCID, invpcid, INVPCID), H(RDMSR, rdmsr),
	H(WRMSR, wrmsr), H(RDTSC, rdtsc), HF(RDTSCP, rdtscp, RDTSCP), H(RDPMC, rdpmc), HF(RDPID, rdpid, RDPID),
	HF(RDRAND, rdrand, RDRAND), HF(RDSEED, rdseed, RDSEED), H(CPUID, cpuid), HOWN(SYSCALL, syscall),
	HOWN(SYSRET, sysret), HFOWN(SYSENTER, sysenter, SEP), HFOWN(SYSEXIT, sysexit, SEP), HOWN(RSM, rsm),
	H(XGETBV, xgetbv), HOWN(XSETBV, xsetbv), HFOWN(MONITOR, monitor, MONITOR), HFOWN(MWAIT, mwait, MONITOR),
	HF(SERIALIZE, nop, SERIALIZE), HOWN(VMCALL, hypercall), HOWN(VMMCALL, hypercall),

	/* Hints, fences and caches */
	H(NOP, nop), H(PAUSE, pause), H(LFENCE, nop), H(MFENCE, nop), H(SFENCE, nop), H(CLFLUSH, clflush),
	HF(CLFLUSHOPT, clflush, CLFLUSHOPT), HF(CLWB, clflush, CLWB), H(CLDEMOTE, nop), HF(CLZERO, clzero, CLZERO),
	H(PREFETCH, nop), H(PREFETCHW, nop), H(PREFETCHWT1, nop), H(PREFETCHNTA, nop), H(PREFETCHT0, nop),
	H(PREFETCHT1, nop), H(PREFETCHT2, nop), H(ENDBR32, nop), H(ENDBR64, nop), H(RDSSP, rdssp),

	/* Processor state */
	H(FXSAVE, native), H(FXRSTOR, native), H(XSAVE, native), H(XRSTOR, native), HF(XSAVEOPT, native, XSAVEOPT),
	HF(XSAVEC, native, XSAVEC), HFOWN(XSAVES, native, XSAVES), HFOWN(XRSTORS, native, XSAVES), H(LDMXCSR, native),
	H(STMXCSR, native), H(EMMS, native), H(FEMMS, native),

	/* Trailing bit manipulation: their results come from the CPU that has them */
	HF(BLCFILL, native, TBM), HF(BLCI, native, TBM), HF(BLCIC, native, TBM), HF(BLCMSK, native, TBM),
	HF(BLCS, native, TBM), HF(BLSFILL, native, TBM), HF(BLSIC, native, TBM), HF(T1MSKC, native, TBM),
	HF(TZMSK, native, TBM),

	/* x87 */
	X87(FADD), X87(FMUL), X87(FCOM), X87(FCOMP), X87(FSUB), X87(FSUBR), X87(FDIV), X87(FDIVR), X87(FADDP),
	X87(FMULP), X87(FCOMPP), X87(FSUBP), X87(FSUBRP), X87(FDIVP), X87(FDIVRP), X87(FIADD), X87(FIMUL), X87(FICOM),
	X87(FICOMP), X87(FISUB), X87(FISUBR), X87(FIDIV), X87(FIDIVR), X87(FLD), X87(FST), X87(FSTP), X87(FSTPNCE),
	X87(FILD), X87(FIST), X87(FISTP), X87(FISTTP), X87(FBLD), X87(FBSTP), X87(FXCH), X87(FNOP), X87(FCHS),
	X87(FABS), X87(FTST), X87(FXAM), X87(FLD1), X87(FLDL2T), X87(FLDL2E), X87(FLDPI), X87(FLDLG2), X87(FLDLN2),
	X87(FLDZ), X87(F2XM1), X87(FYL2X), X87(FPTAN), X87(FPATAN), X87(FXTRACT), X87(FPREM1), X87(FDECSTP),
	X87(FINCSTP), X87(FPREM), X87(FYL2XP1), X87(FSQRT), X87(FSINCOS), X87(FRNDINT), X87(FSCALE), X87(FSIN),
	X87(FCOS), X87(FCMOVCC), X87(FUCOM), X87(FUCOMP), X87(FUCOMPP), X87(FUCOMI), X87(FUCOMIP), X87(FCOMI),
	X87(FCOMIP), X87(FFREE), X87(FFREEP), X87(FLDENV), X87(FNSTENV), X87(FLDCW), X87(FNSTCW), X87(FNSTSW),
	X87(FNCLEX), X87(FNINIT), X87(FNENI), X87(FNDISI), X87(FNSETPM), X87(FRSTOR), X87(FNSAVE), X87(FWAIT),
};
/* clang-format on */
