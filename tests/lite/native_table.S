/*
 * The instructions that tests/lite/native.c runs natively and in a guest. Every one stands alone; memory operands are at RBX (64-byte
 * aligned) with small displacements, RSI is 8, RDI is RBX.
 */
	.macro T name:req, insn:vararg
	.pushsection .rodata.names, "a"
8:	.asciz "\name"
	.popsection
	.pushsection native_code, "ax"
6:	\insn
7:
	.popsection
	.pushsection native_cases, "a"
	.quad 8b - ., 6b - ., 7b - 6b
	.popsection
	.endm

	.intel_syntax noprefix
	/* two operands, legacy SSE: registers, extended registers, memory */
	.macro SSE2OP names:vararg
	.irp n, \names
	T \n, \n xmm1, xmm2
	T \n, \n xmm9, xmm14
	T \n, \n xmm3, xmmword ptr [rbx + 16]
	T \n, \n xmm12, xmmword ptr [rbx + rsi * 2]
	.endr
	.endm
	.macro SCALAR size, names:vararg
	.irp n, \names
	T \n, \n xmm1, xmm2
	T \n, \n xmm10, xmm7
	T \n, \n xmm3, \size ptr [rbx + 20]
	.endr
	.endm
	.macro AVX3OP names:vararg
	.irp n, \names
	T \n, \n xmm1, xmm2, xmm3
	T \n, \n ymm9, ymm4, ymm15
	T \n, \n xmm11, xmm2, xmmword ptr [rbx + 5]
	T \n, \n ymm5, ymm12, ymmword ptr [rbx + rsi]
	.endr
	.endm
	.macro AVX2OP names:vararg
	.irp n, \names
	T \n, \n xmm1, xmm3
	T \n, \n ymm9, ymm15
	T \n, \n ymm5, ymmword ptr [rbx + rsi]
	.endr
	.endm

	SSE2OP addps, addpd, subps, subpd, mulps, mulpd, divps, divpd, minps, minpd, maxps, maxpd, sqrtps, sqrtpd, rcpps, rsqrtps
	SSE2OP andps, andpd, andnps, andnpd, orps, orpd, xorps, xorpd, unpcklps, unpcklpd, unpckhps, unpckhpd, addsubps, addsubpd
	SSE2OP haddps, haddpd, hsubps, hsubpd, cvtdq2ps, cvtps2dq, cvttps2dq, cvtpd2dq, cvttpd2dq, cvtpd2ps
	SSE2OP paddb, paddw, paddd, paddq, psubb, psubw, psubd, psubq, paddsb, paddsw, paddusb, paddusw, psubsb, psubsw, psubusb, psubusw
	SSE2OP pmullw, pmulhw, pmulhuw, pmuludq, pmaddwd, psadbw, pavgb, pavgw, pminub, pminsw, pmaxub, pmaxsw, pand, pandn, por, pxor
	SSE2OP pcmpeqb, pcmpeqw, pcmpeqd, pcmpgtb, pcmpgtw, pcmpgtd, packsswb, packssdw, packuswb, punpcklbw, punpcklwd, punpckldq
	SSE2OP punpcklqdq, punpckhbw, punpckhwd, punpckhdq, punpckhqdq, psllw, pslld, psllq, psrlw, psrld, psrlq, psraw, psrad
	SSE2OP pshufb, phaddw, phaddd, phaddsw, phsubw, phsubd, phsubsw, pmaddubsw, pmulhrsw, psignb, psignw, psignd, pabsb, pabsw, pabsd
	SSE2OP pmulld, pmuldq, pminsb, pminsd, pminuw, pminud, pmaxsb, pmaxsd, pmaxuw, pmaxud, pcmpeqq, pcmpgtq, packusdw, phminposuw, ptest
	SSE2OP aesenc, aesenclast, aesdec, aesdeclast, aesimc, sha1msg1, sha1msg2, sha1nexte, sha256msg1, sha256msg2, movaps, movapd, movdqa
	SSE2OP movups, movupd, movdqu, movsldup, movshdup
	SCALAR dword, addss, subss, mulss, divss, minss, maxss, sqrtss, rcpss, rsqrtss, comiss, ucomiss, cvtss2sd
	SCALAR qword, addsd, subsd, mulsd, divsd, minsd, maxsd, sqrtsd, comisd, ucomisd, cvtsd2ss, movddup, cvtps2pd, cvtdq2pd
	T cvtsi2ss, cvtsi2ss xmm1, ecx
	T cvtsi2ss, cvtsi2ss xmm9, r11
	T cvtsi2ss, cvtsi2ss xmm9, dword ptr [rbx + 4]
	T cvtsi2sd, cvtsi2sd xmm1, rdx
	T cvtsi2sd, cvtsi2sd xmm8, qword ptr [rbx + 8]
	T cvtss2si, cvtss2si eax, xmm5
	T cvtss2si, cvtss2si r12, xmm11
	T cvttss2si, cvttss2si r9d, dword ptr [rbx]
	T cvtsd2si, cvtsd2si rbp, xmm6
	T cvttsd2si, cvttsd2si rax, qword ptr [rbx + 32]
	T movd, movd xmm3, r9d
	T movd, movd ebp, xmm3
	T movq, movq xmm13, r10
	T movq, movq r14, xmm4
	T movq, movq xmm2, qword ptr [rbx + 8]
	T movq, movq qword ptr [rbx + 8], xmm7
	T movss, movss dword ptr [rbx + 12], xmm14
	T movsd, movsd xmm5, qword ptr [rbx + 24]
	T movhps, movhps xmm5, qword ptr [rbx + 24]
	T movlps, movlps qword ptr [rbx + 48], xmm5
	T movhlps, movhlps xmm1, xmm12
	T movlhps, movlhps xmm1, xmm12
	T movmskps, movmskps r15d, xmm3
	T movmskpd, movmskpd ecx, xmm13
	T pmovmskb, pmovmskb edx, xmm9
	T pmovmskb, pmovmskb r8d, mm3
	T pextrb, pextrb eax, xmm3, 5
	T pextrb, pextrb byte ptr [rbx + 7], xmm3, 5
	T pextrw, pextrw r13d, xmm3, 2
	T pextrd, pextrd r11d, xmm10, 3
	T pextrq, pextrq rdx, xmm10, 1
	T extractps, extractps ecx, xmm2, 2
	T pinsrb, pinsrb xmm9, ebp, 11
	T pinsrw, pinsrw xmm3, r14d, 6
	T pinsrd, pinsrd xmm3, dword ptr [rbx + 4], 2
	T pinsrq, pinsrq xmm11, rcx, 1
	T insertps, insertps xmm4, xmm9, 0x9c
	T pshufd, pshufd xmm3, xmm14, 0x1b
	T pshuflw, pshuflw xmm9, xmm2, 0x93
	T pshufhw, pshufhw xmm1, xmmword ptr [rbx], 0x4e
	T shufps, shufps xmm3, xmm9, 0xd8
	T shufpd, shufpd xmm3, xmm9, 1
	T palignr, palignr xmm2, xmm13, 7
	T pslldq, pslldq xmm9, 5
	T psrldq, psrldq xmm2, 11
	T psllw, psllw xmm12, 3
	T psraw, psraw mm3, 7
	T blendps, blendps xmm1, xmm2, 6
	T blendvps, blendvps xmm1, xmm9, xmm0
	T pblendvb, pblendvb xmm4, xmm5, xmm0
	T pblendw, pblendw xmm3, xmm5, 0xa5
	T dpps, dpps xmm1, xmm2, 0x71
	T dppd, dppd xmm1, xmm2, 0x31
	T mpsadbw, mpsadbw xmm3, xmm8, 5
	T roundps, roundps xmm1, xmm2, 4
	T roundsd, roundsd xmm1, xmm2, 1
	T cmpps, cmpps xmm1, xmm12, 5
	T cmpsd, cmpsd xmm3, xmm4, 6
	T pcmpestri, pcmpestri xmm1, xmm2, 0x0c
	T pcmpestri, pcmpestri xmm9, xmmword ptr [rbx + 3], 0x1a
	T pcmpistri, pcmpistri xmm1, xmm10, 0x18
	T pcmpestrm, pcmpestrm xmm1, xmm2, 0x44
	T pcmpistrm, pcmpistrm xmm1, xmmword ptr [rbx], 0x48
	T pclmulqdq, pclmulqdq xmm3, xmm9, 0x11
	T aeskeygenassist, aeskeygenassist xmm1, xmm2, 0x1b
	T sha1rnds4, sha1rnds4 xmm1, xmm2, 2
	T sha256rnds2, sha256rnds2 xmm3, xmm4, xmm0
	T maskmovdqu, maskmovdqu xmm1, xmm11
	T maskmovq, maskmovq mm1, mm2
	T movntdq, movntdq xmmword ptr [rbx + 32], xmm8
	T movntps, movntps xmmword ptr [rbx + 16], xmm8
	T lddqu, lddqu xmm3, xmmword ptr [rbx + 3]
	T stmxcsr, stmxcsr dword ptr [rbx + 40]
	T extrq, extrq xmm1, 7, 9
	T insertq, insertq xmm1, xmm2, 5, 11

	.irp n, paddb, paddw, paddd, paddq, psubb, pmullw, pmulhw, pmaddwd, pand, pandn, por, pxor, pcmpeqb, pcmpgtd, packsswb, packuswb, punpckhdq, psllw, psrlq, pshufb, phaddw, pabsd, pmulhrsw, psadbw, pavgb, pminub, pmaxsw
	T mmx_\n, \n mm1, mm2
	T mmx_\n, \n mm7, qword ptr [rbx + 24]
	.endr
	T mmx_movq, movq mm3, rdx
	T mmx_movq, movq r9, mm5
	T mmx_movq, movq qword ptr [rbx + 8], mm1
	T movq2dq, movq2dq xmm9, mm2
	T movdq2q, movdq2q mm3, xmm12
	T cvtpi2ps, cvtpi2ps xmm1, mm2
	T cvtps2pi, cvtps2pi mm2, xmm9
	T pinsrw, pinsrw mm3, r10d, 2
	T emms, emms

	AVX3OP vaddps, vaddpd, vsubps, vmulpd, vdivps, vminps, vmaxpd, vandps, vandnpd, vorps, vxorpd, vunpcklps, vunpckhpd, vaddsubps, vhaddpd
	AVX3OP vpaddb, vpaddq, vpsubw, vpmulld, vpmuludq, vpmaddwd, vpand, vpandn, vpor, vpxor, vpcmpeqd, vpcmpgtq, vpacksswb, vpunpckhqdq, vpshufb
	AVX3OP vpsllvd, vpsrlvq, vpsravd, vpmaxuw, vpminsd, vpsadbw, vphaddd, vpsignb, vfmadd132ps, vfmadd213pd, vfmadd231ps, vfnmsub231pd
	AVX3OP vfmaddsub213ps, vfmsubadd132pd, vaesenc, vaesdeclast
	.irp n, vpermd, vpermps
	T \n, \n ymm3, ymm9, ymm1
	T \n, \n ymm12, ymm2, ymmword ptr [rbx + 8]
	.endr
	AVX2OP vsqrtps, vsqrtpd, vcvtdq2ps, vcvtps2dq, vptest, vtestps, vtestpd, vmovups, vmovdqu, vpabsw, vmovshdup, vrcpps, vrsqrtps
	.irp n, vpmovzxbw, vpmovsxwd, vpmovzxdq, vpmovsxbw
	T \n, \n ymm3, xmm9
	T \n, \n ymm13, xmmword ptr [rbx + 3]
	.endr
	T vmovaps, vmovaps ymmword ptr [rbx + 32], ymm9
	T vmovntdqa, vmovntdqa ymm3, ymmword ptr [rbx + 32]
	T vaddss, vaddss xmm1, xmm9, xmm3
	T vaddsd, vaddsd xmm11, xmm9, qword ptr [rbx + 3]
	T vcvtsi2sd, vcvtsi2sd xmm3, xmm9, r13
	T vcvtsd2si, vcvtsd2si r9, xmm12
	T vcvtss2si, vcvtss2si ecx, xmm12
	T vmovd, vmovd xmm3, r8d
	T vmovq, vmovq rdx, xmm9
	T vpmovmskb, vpmovmskb r10d, ymm12
	T vmovmskps, vmovmskps eax, ymm3
	T vpinsrd, vpinsrd xmm3, xmm9, r9d, 2
	T vpextrq, vpextrq qword ptr [rbx + 9], xmm9, 1
	T vperm2f128, vperm2f128 ymm1, ymm9, ymm3, 0x21
	T vperm2i128, vperm2i128 ymm1, ymm9, ymmword ptr [rbx], 0x83
	T vpermq, vpermq ymm3, ymm12, 0x4e
	T vinserti128, vinserti128 ymm3, ymm9, xmm12, 1
	T vextracti128, vextracti128 xmmword ptr [rbx + 5], ymm9, 1
	T vbroadcastss, vbroadcastss ymm3, dword ptr [rbx + 7]
	T vpbroadcastb, vpbroadcastb ymm3, xmm9
	T vbroadcastf128, vbroadcastf128 ymm3, xmmword ptr [rbx + 7]
	T vblendvps, vblendvps ymm1, ymm2, ymm9, ymm12
	T vpblendd, vpblendd ymm1, ymm2, ymm9, 0x5a
	T vpalignr, vpalignr ymm1, ymm2, ymm9, 9
	T vpshufd, vpshufd ymm1, ymm9, 0x39
	T vroundpd, vroundpd ymm1, ymm9, 2
	T vcmpps, vcmpps ymm1, ymm9, ymm12, 0x1d
	T vdpps, vdpps ymm1, ymm2, ymm12, 0xf3
	T vpsllw, vpsllw ymm1, ymm9, 3
	T vpslldq, vpslldq ymm1, ymm9, 3
	T vcvtph2ps, vcvtph2ps ymm1, xmm9
	T vcvtps2ph, vcvtps2ph xmmword ptr [rbx + 5], ymm9, 2
	T vpclmulqdq, vpclmulqdq ymm1, ymm2, ymm9, 0x10
	T vcomisd, vcomisd xmm9, xmm1
	T vmaskmovps, vmaskmovps ymm1, ymm9, ymmword ptr [rbx + 4]
	T vmaskmovps, vmaskmovps ymmword ptr [rbx + 4], ymm1, ymm9
	T vmaskmovpd, vmaskmovpd ymm1, ymm9, ymmword ptr [rbx + 4]
	T vpmaskmovd, vpmaskmovd ymmword ptr [rbx + 4], ymm1, ymm9
	T vpmaskmovq, vpmaskmovq xmm1, xmm9, xmmword ptr [rbx + 4]
	T vzeroupper, vzeroupper
	T vzeroall, vzeroall
	/* native.c makes the indices in YMM2 small for these */
	T vgatherdps, vgatherdps ymm1, dword ptr [rbx + ymm2], ymm9
	T vgatherdpd, vgatherdpd ymm1, qword ptr [rbx + xmm2 + 8], ymm9
	T vgatherqps, vgatherqps xmm1, dword ptr [rbx + ymm2 * 2], xmm9
	T vpgatherdd, vpgatherdd xmm1, dword ptr [rbx + xmm2 + 3], xmm9
	T vpgatherqq, vpgatherqq ymm1, qword ptr [rbx + ymm2 * 4], ymm9

	/* x87 */
	.irp n, fadd, fmul, fsub, fsubr, fdiv, fdivr
	T \n, \n st, st(3)
	T \n, \n st(2), st
	T \n, \n dword ptr [rbx + 4]
	T \n, \n qword ptr [rbx + 8]
	.endr
	.irp n, faddp, fmulp, fsubp, fsubrp, fdivp, fdivrp
	T \n, \n st(2), st
	.endr
	.irp n, fiadd, fimul, fisub, fidivr, ficom
	T \n, \n word ptr [rbx + 6]
	T \n, \n dword ptr [rbx + 8]
	.endr
	.irp n, fchs, fabs, ftst, fxam, f2xm1, fyl2x, fptan, fpatan, fxtract, fprem, fprem1, fyl2xp1, fsqrt, fsincos, frndint, fscale, fsin, fcos, fdecstp, fincstp, fnop, fld1, fldpi, fldz, fldl2t, fnclex, fninit, fcompp, fucompp
	T \n, \n
	.endr
	.irp n, fcom, fucom, fucomp, fxch, ffree
	T \n, \n st(4)
	.endr
	.irp n, fcomi, fucomi, fcomip, fucomip, fcmovb, fcmove, fcmovbe, fcmovu, fcmovnb, fcmovne, fcmovnbe, fcmovnu
	T \n, \n st, st(2)
	.endr
	T fld, fld st(5)
	T fld, fld tbyte ptr [rbx + 16]
	T fld, fld dword ptr [rbx + 3]
	T fstp, fstp tbyte ptr [rbx + 17]
	T fstp, fstp qword ptr [rbx + 17]
	T fst, fst dword ptr [rbx + 17]
	T fild, fild qword ptr [rbx + 9]
	T fistp, fistp qword ptr [rbx + 9]
	T fist, fist word ptr [rbx + 9]
	T fisttp, fisttp dword ptr [rbx + 9]
	T fbld, fbld tbyte ptr [rbx + 9]
	T fbstp, fbstp tbyte ptr [rbx + 9]
	T fnstsw, fnstsw ax
	T fnstsw, fnstsw word ptr [rbx + 3]
	T fnstcw, fnstcw word ptr [rbx + 3]
	T fldcw, fldcw word ptr [rbx + 64]
	.section .note.GNU-stack, "", @progbits
