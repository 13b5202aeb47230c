/*
 * The names of the SIMD and matrix instructions (MMX to AVX-512, XOP, 3DNow!, AMX, Key Locker).
 * The list is alphabetical; see mnemonics.h.
 */
#ifndef CORE_X86_EMUL_MNEMONICS_SIMD_H
#define CORE_X86_EMUL_MNEMONICS_SIMD_H

#define INSN_MNEMONICS_SIMD(M) \
	M(ADDPD) M(ADDPS)

#endif
