#!/bin/sh
# What VT-x does without exits, counted: run by outer.py in Bochs, prints TAP.
tracing=/sys/kernel/tracing
number=0
ok()
{
	number=$((number + 1))
	[ "$1" = 0 ] && echo "ok $number - $2" || echo "not ok $number - $2"
}
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
traced api-kvm-irq priority
[ "$(exits CR_ACCESS)" = 0 ]
ok $? "TPR shadow: no access to CR8 exits"
[ "$(exits TPR_BELOW_THRESHOLD)" = 2 ]
ok $? "but when an interrupt waits for it"
[ "$(exits APIC_ACCESS)" -ge 6 ] && ! grep "kvm_exit: .* reason APIC_ACCESS .* info1 0x0000000000000080" /tmp/trace
ok $? "APIC-access page: other registers exit, the TPR does not"
traced api-kvm-run dirty-many
[ "$(exits EPT_VIOLATION)" -lt 1900 ]
ok $? "page-modification logging: writes of logged pages do not exit"
[ "$(exits PML_FULL)" -ge 3 ]
ok $? "but when the log is full"
echo 0 >$tracing/events/kvm/kvm_exit/enable
echo "1..$number"
