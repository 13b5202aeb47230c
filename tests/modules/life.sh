#!/bin/sh
# What becomes of VMs, and of the machine, when one of them goes: run by outer.py, prints TAP. $1: the engine's module.
engine=$1
. /tests/vm
fails() { ! "$@" 2>/dev/null; }

spin_up 3
ok $? "three vCPUs spin on two CPUs"
fails rmmod "$engine"
ok $? "the engine stays while there is a VM"
fails rmmod trine
ok $? "so does trine.ko"
spin_down
ok $? "the VM ends when its client does"

spin_up 2
kill -KILL $pid
wait $pid 2>/dev/null
tries=50
while [ "$(cat /sys/module/"$(echo "$engine" | tr - _)"/refcnt)" != 0 ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
[ $tries -gt 0 ]
ok $? "a client killed while its vCPUs run leaves nothing behind"

if [ -e /sys/devices/system/cpu/cpu1/online ]; then
	spin_up 4
	bad=0
	for i in 1 2 3 4 5; do
		echo 0 >/sys/devices/system/cpu/cpu1/online || bad=1
		echo 1 >/sys/devices/system/cpu/cpu1/online || bad=1
	done
	ok $bad "a CPU comes and goes under running VMs"
	svme 1
	ok $? "it comes back with SVME"
	spin_down
	ok $? "and the vCPUs go on"
	echo 0 >/sys/devices/system/cpu/cpu1/online
	spin_up 2
	echo 1 >/sys/devices/system/cpu/cpu1/online
	svme 1
	ok $? "a CPU that comes later is taken too"
	spin_down
	ok $? "and the vCPUs go on there"
	svme 0
	ok $? "without a VM no CPU has SVME"
	echo 0 >/sys/devices/system/cpu/cpu1/online && echo 1 >/sys/devices/system/cpu/cpu1/online && svme 0
	ok $? "nor does one that comes then"
else
	echo "ok $((number += 1)) - CPUs come and go # SKIP this machine has one"
fi

pressure 96 2 2
ok $? "a guest's memory stays what it is when its host moves it and its client forks"

# outer.py looks for the kernel's complaints: the first comes after two to three times as long
timeout=$(cat /proc/sys/kernel/hung_task_timeout_secs)
echo 4 >/proc/sys/kernel/hung_task_timeout_secs
spin_up 1
sleep 13
spin_down
ok $? "who waits for a running vCPU is not taken for a task that hangs"
echo "$timeout" >/proc/sys/kernel/hung_task_timeout_secs

bad=0
for i in 1 2 3 4 5 6 7 8 9 10; do
	rmmod "$engine" && rmmod trine && [ ! -e /dev/kvm ] && insmod /lib/modules/trine.ko && insmod "/lib/modules/$engine.ko" || bad=1
	spin_up 2 && kill -KILL $pid && wait $pid 2>/dev/null
	tries=50
	while [ "$(cat /sys/module/"$(echo "$engine" | tr - _)"/refcnt)" != 0 ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
done
ok $bad "modules are loaded and unloaded ten times, with a VM between"
echo "1..$number"
