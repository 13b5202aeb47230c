#!/bin/sh
# Trace events and statistics of running VMs: run by outer.py, prints TAP.
# /linux holds the modules of the kernel's own KVM, /tests the programs, perf and trace-cmd.
# The same programs run on Linux's KVM first: its formats and its exits are what ours are held against.
tracing=/sys/kernel/tracing
. /tests/vm
has() { grep -qE "$1" /tmp/trace; ok $? "there is $2"; }
load() { for module; do insmod "$module" || return; done; }
tries() { tries=50; while ! "$@" 2>/dev/null && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done; [ $tries -gt 0 ]; }
# The fields of each event, without those that all events have
fields() { sed -n '/field:.* common_/d; /field:/p' "$1" | tr -s '\t ' ' '; }
formats()
{
	mkdir -p "$1"
	for event in $tracing/events/kvm/*/format; do
		name=${event%/format}
		fields "$event" >"$1/${name##*/}"
	done
}

# perf writes what it saw to $1, the reasons of the report to $1.reasons
exits()
{
	# Its status is the program's, of which not every case is for Linux's
	perf kvm stat record -o "$1" api-kvm-run >"$1.log" 2>&1
	perf kvm -i "$1" stat report >"$1.report" 2>&1
	# VM-EXIT may be two words; then come samples and their percentage. An interrupt of the machine's comes when it comes.
	sed -n 's/^ *\([A-Za-z0-9_ ]*[A-Za-z0-9_]\)  *[0-9][0-9]*  *[0-9.]*%.*/\1/p' "$1.report" | grep -v '^interrupt$' | sort >"$1.reasons"
	[ -s "$1.reasons" ] || { tail -5 "$1.log" "$1.report"; false; }
}

rmmod trine-amd && rmmod trine && load /linux/irqbypass.ko /linux/kvm.ko /linux/kvm-amd.ko && formats /tmp/linux
ok $? "Linux's KVM is loaded"
exits /tmp/exits.linux
ok $? "perf kvm stat works on it"
tries rmmod kvm-amd && rmmod kvm irqbypass && load /lib/modules/trine.ko /lib/modules/trine-amd.ko
ok $? "and it gives way to ours"

# ---- formats
formats /tmp/ours
for file in /tmp/ours/*; do
	name=${file##*/}
	diff "$file" "/tmp/linux/$name" >/tmp/differ 2>&1
	ok $? "$name has the fields of Linux's"
	cat /tmp/differ
done
for file in /tmp/linux/*; do [ -e "/tmp/ours/${file##*/}" ] || echo "${file##*/}"; done | xargs echo "# Linux's that are not ours:"

# ---- perf kvm stat
exits /tmp/exits.ours
ok $? "perf kvm stat works on ours"
cmp /tmp/exits.ours.reasons /tmp/exits.linux.reasons
ok $? "it reports the reasons for exits that it reports of Linux's"
for event in ioport mmio; do
	perf kvm -i /tmp/exits.ours stat report --event=$event 2>&1 | grep -qE '0x[0-9a-f]+:[A-Z]+ +[0-9]+ '
	ok $? "and $event"
done
echo "# Linux's:"
cat /tmp/exits.linux.report
echo "# ours:"
cat /tmp/exits.ours.report

# ---- trace-cmd
trace-cmd record -e kvm -o /tmp/trace.dat sh -c 'for name in run irq hyperv; do api-kvm-$name; done' >/tmp/record.log 2>&1
ok $? "trace-cmd record -e kvm"
# Once with what libtraceevent knows of these events by itself, then as their formats say
trace-cmd report -i /tmp/trace.dat >/tmp/trace 2>/tmp/report.log
ok $? "trace-cmd report"
has 'kvm_exit: +reason (EXIT_HLT|EXIT_IOIO) rip 0x[0-9a-f]+ info' "an exit by libtraceevent's name"
trace-cmd report -N -i /tmp/trace.dat >/tmp/trace 2>>/tmp/report.log
ok $? "trace-cmd report -N"
[ ! -s /tmp/report.log ] && ! grep -q 'FAILED TO PARSE' /tmp/trace
ok $? "each event's text can be read"
head -5 /tmp/report.log
sed -i 's/: \(kvm_[a-z_]*\): */: \1: /' /tmp/trace
has 'kvm_entry: vcpu 0, rip 0x[0-9a-f]+$' kvm_entry
has 'kvm_exit: vcpu 0 reason (hlt|io) rip 0x[0-9a-f]+ info1 0x[0-9a-f]{16} info2 0x[0-9a-f]{16} intr_info 0x[0-9a-f]{8} error_code 0x[0-9a-f]{8}$' kvm_exit
has 'kvm_userspace_exit: reason KVM_EXIT_IO \(2\)$' kvm_userspace_exit
has 'kvm_pio: pio_write at 0x[0-9a-f]+ size 1 count 1 val 0x[0-9a-f]+ *$' kvm_pio
has 'kvm_mmio: mmio write len [0-9] gpa 0x[0-9a-f]+ val 0x[0-9a-f]+$' kvm_mmio
has 'kvm_emulate_insn: 0:[0-9a-f]+:[0-9a-f ]+ \((real|prot16|prot32|prot64)\)$' kvm_emulate_insn
has 'kvm_page_fault: vcpu 0 rip 0x[0-9a-f]+ address 0x[0-9a-f]{16} error_code 0x[0-9a-f]+$' kvm_page_fault
has 'kvm_fpu: (un)?load$' kvm_fpu
has 'kvm_write_tsc_offset: vcpu=0 prev=[0-9]+ next=[0-9]+$' kvm_write_tsc_offset
has 'kvm_vcpu_wakeup: (wait|poll) time [0-9]+ ns, polling (in)?valid$' kvm_vcpu_wakeup
has 'kvm_dirty_ring_push: ring 0: dirty 0x[0-9a-f]+ reset 0x[0-9a-f]+ slot [0-9]+ offset 0x[0-9a-f]+ \(used [0-9]+\)$' kvm_dirty_ring_push
has 'kvm_dirty_ring_reset: ring 0: dirty 0x' kvm_dirty_ring_reset
has 'kvm_dirty_ring_exit: vcpu 0$' kvm_dirty_ring_exit
has 'kvm_set_irq: gsi [0-9]+ level [01] source [0-9]+$' kvm_set_irq
has 'kvm_pic_set_irq: chip [01] pin [0-7] \((level|edge)(\|masked)?\)' kvm_pic_set_irq
has 'kvm_ioapic_set_irq: pin [0-9]+ dst [0-9a-f]+ vec [0-9]+ \((Fixed|LowPrio|ExtINT|NMI)\|(logical|physical)\|(level|edge)(\|masked)?\)' kvm_ioapic_set_irq
has 'kvm_msi_set_irq: dst [0-9a-f]+ vec [0-9]+ \(Fixed\|(logical|physical)\|edge' kvm_msi_set_irq
has 'kvm_apic_accept_irq: apicid [0-9a-f]+ vec [0-9]+ \(Fixed\|(level|edge)\)$' kvm_apic_accept_irq
has 'kvm_inj_virq: IRQ 0x[0-9a-f]+$' kvm_inj_virq
has 'kvm_hv_hypercall: code 0x[0-9a-f]+ (fast|slow) var_cnt 0x' kvm_hv_hypercall
has 'kvm_hv_hypercall_done: result 0x[0-9a-f]+$' kvm_hv_hypercall_done
sed 's/^.*: kvm_/kvm_/; s/:.*//' /tmp/trace | sort | uniq -c | sort -rn | sed 's/^/# /'

# ---- statistics
spin_up 2
dir=$(echo /sys/kernel/debug/kvm/$pid-*)
[ "$(cat "$dir/vcpu0/exits")" -gt 0 ]
ok $? "debugfs counts a vCPU's exits"
[ -e "$dir/vcpu1/exits" ] && [ -e "$dir/remote_tlb_flush" ]
ok $? "and has the other vCPU and the VM"
spin_down
[ ! -e "$dir" ]
ok $? "until the VM is gone"
echo "1..$number"
