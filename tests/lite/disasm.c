/* lite_disasm() on instructions whose text is known from the manuals. */
#include <stdlib.h>
#include <string.h>

#include "engines/lite/log.h"
#include "tests/tap.h"

#define VA 0x401000ULL

static const struct {
	enum insn_mode mode;
	const char *hex, *text;
} cases[] = {
	{ MODE_64, "90", "nop" },
	{ MODE_64, "f3 90", "pause" },
	{ MODE_64, "48 89 e5", "mov rbp, rsp" },
	{ MODE_64, "88 e0", "mov al, ah" },
	{ MODE_64, "40 88 e0", "mov al, spl" },
	{ MODE_64, "45 88 c1", "mov r9b, r8b" },
	{ MODE_64, "66 41 89 ca", "mov r10w, cx" },
	{ MODE_64, "41 89 ff", "mov r15d, edi" },
	{ MODE_64, "b8 ff ff ff ff", "mov eax, 0xffffffff" },
	{ MODE_64, "48 c7 c0 ff ff ff ff", "mov rax, 0xffffffffffffffff" },
	{ MODE_64, "48 b8 88 77 66 55 44 33 22 11", "mov rax, 0x1122334455667788" },
	{ MODE_64, "83 e8 01", "sub eax, 0x1" },
	{ MODE_64, "8b 04 8b", "mov eax, dword ptr [rbx+rcx*4]" },
	{ MODE_64, "8b 44 8b f0", "mov eax, dword ptr [rbx+rcx*4-0x10]" },
	{ MODE_64, "4c 8b ac c4 00 01 00 00", "mov r13, qword ptr [rsp+rax*8+0x100]" },
	{ MODE_64, "0f b6 02", "movzx eax, byte ptr [rdx]" },
	{ MODE_64, "67 8b 02", "mov eax, dword ptr [edx]" },
	{ MODE_64, "64 48 8b 04 25 28 00 00 00", "mov rax, qword ptr fs:[0x28]" },
	{ MODE_64, "65 ff 05 10 00 00 00", "inc dword ptr gs:[rip+0x10] # 0x401017" },
	{ MODE_64, "48 8d 3d f9 ff ff ff", "lea rdi, [rip-0x7] # 0x401000" },
	{ MODE_64, "48 a1 88 77 66 55 44 33 22 11", "mov rax, qword ptr [0x1122334455667788]" },
	{ MODE_64, "eb fe", "jmp 0x401000" },
	{ MODE_64, "0f 84 00 01 00 00", "jz 0x401106" },
	{ MODE_64, "7f 02", "jnle 0x401004" },
	{ MODE_64, "e8 fb 0f 00 00", "call 0x402000" },
	{ MODE_64, "ff d0", "call rax" },
	{ MODE_64, "ff 25 02 00 00 00", "jmp qword ptr [rip+0x2] # 0x401008" },
	{ MODE_64, "c3", "ret" },
	{ MODE_64, "48 cb", "ret far" },
	{ MODE_64, "48 cf", "iretq" },
	{ MODE_64, "e3 00", "jrcxz 0x401002" },
	{ MODE_64, "9c", "pushfq" },
	{ MODE_64, "6a ff", "push 0xffffffffffffffff" },
	{ MODE_64, "48 99", "cqo" },
	{ MODE_64, "98", "cwde" },
	{ MODE_64, "f3 48 a5", "rep movsq" },
	{ MODE_64, "f3 a6", "repe cmpsb" },
	{ MODE_64, "f2 ae", "repne scasb" },
	{ MODE_64, "65 a4", "gs movsb" },
	{ MODE_64, "f0 48 0f c7 0f", "lock cmpxchg16b xmmword ptr [rdi]" },
	{ MODE_64, "f0 41 01 00", "lock add dword ptr [r8], eax" },
	{ MODE_64, "d1 e0", "shl eax, 0x1" },
	{ MODE_64, "d3 e8", "shr eax, cl" },
	{ MODE_64, "0f 95 c1", "setnz cl" },
	{ MODE_64, "48 0f 46 c1", "cmovbe rax, rcx" },
	{ MODE_64, "0f 22 d8", "mov cr3, rax" },
	{ MODE_64, "0f 21 f8", "mov rax, dr7" },
	{ MODE_64, "8e d8", "mov ds, ax" },
	{ MODE_64, "e4 60", "in al, 0x60" },
	{ MODE_64, "ef", "out dx, eax" },
	{ MODE_64, "0f 30", "wrmsr" },
	{ MODE_64, "0f 05", "syscall" },
	{ MODE_64, "48 0f ae 00", "fxsave64 [rax]" },
	{ MODE_64, "d9 c1", "fld st1" },
	{ MODE_64, "db 28", "fld tbyte ptr [rax]" },
	{ MODE_64, "0f 6f 00", "movq mm0, qword ptr [rax]" },
	{ MODE_64, "66 0f fe c1", "paddd xmm0, xmm1" },
	{ MODE_64, "c5 fd fe 03", "vpaddd ymm0, ymm0, ymmword ptr [rbx]" },
	{ MODE_64, "62 f1 75 d9 fe 42 01", "vpaddd zmm0 {k1} {z}, zmm1, dword ptr [rdx+0x4] {1to16}" },
	{ MODE_64, "62 f1 f5 18 58 c2", "vaddpd zmm0, zmm1, zmm2, {rn-sae}" },
	{ MODE_64, "c4 e2 69 90 04 88", "vpgatherdd xmm0, dword ptr [rax+xmm1*4], xmm2" },
	{ MODE_32, "ea 78 56 34 12 08 00", "jmp far 0x0008:0x12345678" },
	{ MODE_32, "2e 8b 00", "mov eax, dword ptr cs:[eax]" },
	{ MODE_32, "a1 00 f0 ff ff", "mov eax, dword ptr [0xfffff000]" },
	{ MODE_32, "60", "pushad" },
	{ MODE_16, "8b 42 fe", "mov ax, word ptr [bp+si-0x2]" },
	{ MODE_16, "66 0f 01 16 34 12", "lgdt fword ptr [0x1234]" },
	{ MODE_16, "eb fc", "jmp 0xffe" },
	{ MODE_16, "9a 00 7c c0 07", "call far 0x07c0:0x7c00" },
};

static unsigned bytes_of(const char *hex, u8 *bytes)
{
	unsigned n = 0;
	char *end;

	while (*hex && n < INSN_MAX_LEN) {
		bytes[n++] = (u8)strtoul(hex, &end, 16);
		hex = end;
	}
	return n;
}

int main(void)
{
	char text[160], cut[160];
	bool whole = true;

	tap_begin();
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		u8 bytes[INSN_MAX_LEN];
		unsigned n = bytes_of(cases[i].hex, bytes);
		struct insn insn;
		int err = insn_decode(&insn, bytes, n, cases[i].mode);

		if (!tap_ok(!err && insn.len == n, "%s decodes", cases[i].hex))
			continue;
		n = (unsigned)lite_disasm(&insn, VA, text, sizeof(text));
		if (!tap_ok(!strcmp(text, cases[i].text) && n == strlen(text), "and is %s", cases[i].text))
			tap_diag("it says \"%s\"", text);
		for (size_t size = 1; size <= strlen(text); size++) {
			memset(cut, '!', sizeof(cut));
			n = (unsigned)lite_disasm(&insn, VA, cut, size);
			if (n != size - 1 || memcmp(cut, text, n) || cut[n] || cut[size] != '!')
				whole = false;
		}
	}
	tap_ok(whole, "a text that does not fit is cut, and nothing is written behind the buffer");
	return tap_end();
}
