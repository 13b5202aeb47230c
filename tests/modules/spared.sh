#!/bin/sh
# What VT-x does without exits, counted: run by outer.py in Bochs, prints TAP. What is expected depends on enable_apicv.
tracing=/sys/kernel/tracing
. /tests/vm
exits() { grep -c "kvm_exit: .* reason $1 " /tmp/trace; }
traced()
{
	echo >$tracing/trace
	"$@" >/dev/null
	ok $? "$*, traced"
	cat $tracing/trace >/tmp/trace
	sed -n 's/^.*kvm_exit: .* reason \([A-Z_]*\) .*/\1/p' /tmp/trace | sort | uniq -c | sed 's/^/# /'
}

echo 8192 >$tracing/buffer_size_kb
echo 1 >$tracing/events/kvm/kvm_exit/enable
apicv=$(cat /sys/module/trine_intel/parameters/enable_apicv)
traced api-kvm-apic priority
[ "$(exits CR_ACCESS)" = 0 ]
ok $? "TPR shadow: no access to CR8 exits"
if [ "$apicv" = N ]; then
	[ "$(exits TPR_BELOW_THRESHOLD)" = 2 ]
	ok $? "but when an interrupt waits for it"
	[ "$(exits APIC_ACCESS)" -ge 6 ] && ! grep "kvm_exit: .* reason APIC_ACCESS .* info1 0x0000000000000080" /tmp/trace
	ok $? "APIC-access page: other registers exit, the TPR does not"
	# Two hundred reads of the TPR of an APIC that was elsewhere before
	traced api-kvm-apic moved
	[ "$(exits EPT_VIOLATION)" -lt 150 ] && [ "$(exits EPT_MISCONFIG)" -lt 150 ]
	ok $? "nor when the APIC has been elsewhere and is back"
	# Fifty rounds: ICR and EOI written, four registers read
	traced api-kvm-apic xapic
	[ "$(exits APIC_ACCESS)" -ge 300 ]
	ok $? "without APIC-register virtualization each access exits"
	traced api-kvm-apic x2apic
	[ "$(exits MSR_WRITE)" -ge 150 ] && [ "$(exits MSR_READ)" -ge 250 ]
	ok $? "and each MSR of the x2APIC"
else
	[ "$(exits TPR_BELOW_THRESHOLD)" = 0 ]
	ok $? "virtual-interrupt delivery: nor does what waits for it"
	# Of an APIC that is not enabled yet
	[ "$(exits APIC_ACCESS)" = 1 ] && [ "$(exits APIC_WRITE)" = 0 ]
	ok $? "interrupts to itself and their ends do not exit"
	traced api-kvm-apic xapic
	[ "$(exits APIC_ACCESS)" = 0 ] && [ "$(exits APIC_WRITE)" = 0 ] && [ "$(exits EOI_INDUCED)" = 0 ]
	ok $? "APIC-register virtualization: nothing that is written and read fifty times exits"
	traced api-kvm-apic x2apic
	[ "$(exits MSR_WRITE)" = 1 ] && [ "$(exits MSR_READ)" = 1 ]
	ok $? "x2APIC mode: nor do MSRs, but for the ICR, once read and once written"
	traced api-kvm-apic registers
	[ "$(exits APIC_WRITE)" = 11 ]
	ok $? "writes that something follows from exit when they are done"
	traced api-kvm-apic level
	[ "$(exits EOI_INDUCED)" = 3 ]
	ok $? "so do the ends of level-triggered interrupts"
	# Nothing of the local APIC's, so once is enough
	traced api-kvm-run dirty-many
	[ "$(exits EPT_VIOLATION)" -lt 1900 ]
	ok $? "page-modification logging: writes of logged pages do not exit"
	[ "$(exits PML_FULL)" -ge 3 ]
	ok $? "but when the log is full"
fi
# Fifty ticks of a guest that does not wait, one of a guest that does
echo 1 >$tracing/events/timer/hrtimer_expire_entry/enable
traced api-kvm-apic timer
expired=$(grep -c 'hrtimer_expire_entry: .* function=[a-z_]* \[trine\] ' /tmp/trace)
echo "# $expired timers of the host"
if [ "$(cat /sys/module/trine_intel/parameters/preemption_timer)" = Y ]; then
	[ "$expired" -le 2 ] && [ "$(exits PREEMPTION_TIMER)" -ge 50 ]
	ok $? "VMX-preemption timer: the local APIC's takes one of the host's where the guest waits, and no other"
else
	[ "$expired" -ge 50 ]
	ok $? "without the VMX-preemption timer each tick is one of the host's"
fi
echo 0 >$tracing/events/timer/hrtimer_expire_entry/enable
echo 0 >$tracing/events/kvm/kvm_exit/enable
echo "1..$number"
