#!/bin/sh
# A machine that sleeps, starts another kernel and is reset, with a VM in it: run by outer.py --again, prints TAP. The kernel that comes
# second runs this as well. For AMD-V: how a CPU is left can be seen in EFER.
. /tests/vm

# Suspends to RAM, until an alarm.
sleeps()
{
	before=$(cat /sys/power/suspend_stats/success)
	echo 0 >/sys/class/rtc/rtc0/wakealarm
	echo +2 >/sys/class/rtc/rtc0/wakealarm && echo mem >/sys/power/state && [ "$(cat /sys/power/suspend_stats/success)" = $((before + 1)) ]
}

# What is in the cgroup $1 stands still or not: $2 1, 0
freezes()
{
	echo "$2" >"$1/cgroup.freeze"
	tries=50
	while ! grep -q "frozen $2" "$1/cgroup.events" && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
	[ $tries -gt 0 ]
}

if grep -q outer.again /proc/cmdline; then
	svme 0
	ok $? "the next kernel finds no CPU with SVME"
	spin_up 3
	ok $? "and has VMs of its own"
	svme 1
	ok $? "on CPUs with SVME"
	echo "1..$number"
	# Seen by outer.py: its emulator ends with the reset
	echo "outer: done"
	sleep 0.2
	reboot -f
	sleep 60
	exit 1
fi

svme 0
ok $? "without a VM no CPU has SVME"
spin_up 3
ok $? "three vCPUs spin on two CPUs"
svme 1
ok $? "each CPU has SVME"
mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir /sys/fs/cgroup/vm && echo $pid >/sys/fs/cgroup/vm/cgroup.procs
ok $? "they are in a cgroup of their own"
freezes /sys/fs/cgroup/vm 1
ok $? "which is frozen"
freezes /sys/fs/cgroup/vm 0
ok $? "and thawed"
echo deep >/sys/power/mem_sleep
sleeps
ok $? "the machine suspends to RAM and wakes"
svme 1
ok $? "each CPU has SVME again"
sleep 0.5
spin_down
ok $? "the vCPUs go on, no clock went back"
sleeps
ok $? "the machine sleeps without a VM"
svme 0
ok $? "no CPU has SVME then"
spin_up 2 && spin_down
ok $? "and there can be VMs again"

cat /dev/vda >/tmp/kernel && cat /dev/vdb >/tmp/initramfs
ok $? "there is a kernel to start"
spin_up 3
ok $? "kexec: three vCPUs spin"
echo "1..$number"
kexec /tmp/kernel /tmp/initramfs "$(cat /proc/cmdline) outer.again"
ok 1 "kexec starts a kernel"
