#!/bin/sh
# Trace events and statistics of running VMs: run by outer.py, prints TAP.
tracing=/sys/kernel/tracing
number=0
ok()
{
	number=$((number + 1))
	[ "$1" = 0 ] && echo "ok $number - $2" || echo "not ok $number - $2"
}
has() { grep -qE "$1" /tmp/trace; ok $? "there is $2"; }

echo 8192 >$tracing/buffer_size_kb
echo 1 >$tracing/events/kvm/enable
ok $? "the events of kvm are switched on"
api-kvm-run >/dev/null
echo 0 >$tracing/events/kvm/enable
cat $tracing/trace >/tmp/trace
has 'kvm_entry: vcpu 0, rip 0x[0-9a-f]+$' kvm_entry
has 'kvm_exit: vcpu 0 reason (hlt|EXIT_HLT|io|IO_INSTRUCTION) rip 0x[0-9a-f]+ info1 0x[0-9a-f]{16} info2 0x[0-9a-f]{16} intr_info 0x[0-9a-f]{8} error_code 0x[0-9a-f]{8}$' kvm_exit
has 'kvm_userspace_exit: reason KVM_EXIT_IO \(2\)$' kvm_userspace_exit
has 'kvm_pio: pio_write at 0x[0-9a-f]+ size 1 count 1 val 0x[0-9a-f]+ *$' kvm_pio
has 'kvm_mmio: mmio write len [0-9] gpa 0x[0-9a-f]+ val 0x[0-9a-f]+$' kvm_mmio
has 'kvm_page_fault: vcpu 0 rip 0x[0-9a-f]+ address 0x[0-9a-f]{16} error_code 0x[0-9a-f]+$' kvm_page_fault
spin 2 >/tmp/spin &
while ! grep -q spinning /tmp/spin; do sleep 0.1; done
dir=$(echo /sys/kernel/debug/kvm/$!-*)
[ "$(cat "$dir/vcpu0/exits")" -gt 0 ]
ok $? "debugfs counts a vCPU's exits"
[ -e "$dir/vcpu1/exits" ] && [ -e "$dir/remote_tlb_flush" ]
ok $? "and has the other vCPU and the VM"
kill $!
wait $!
[ ! -e "$dir" ]
ok $? "until the VM is gone"
sed 's/^.*: kvm_/kvm_/; s/:.*//' /tmp/trace | sort | uniq -c | sort -rn | sed 's/^/# /'
echo "1..$number"
