#!/bin/sh
# What a machine has after a long time with VMs is what it had before: run by outer.py with a disk for swap, prints TAP.
# $1: the engine's module; $2: how many cycles; $3: seconds under memory pressure.
engine=$1 cycles=$2 seconds=$3
. /tests/vm
# Compaction with poisoned pages takes an emulator its time, and where it has little of it the kernel's own threads seem to hang
echo 60 >/proc/sys/kernel/watchdog_thresh
echo 120 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout

# In KiB, all that the kernel holds for itself and does not give back when it is asked.
held()
{
	sync
	echo 3 >/proc/sys/vm/drop_caches
	sleep 1
	awk '/^(SUnreclaim|KernelStack|PageTables|VmallocUsed|Percpu):/ { sum += $2 } END { print sum }' /proc/meminfo
}

# A kilobyte for each cycle and one MiB of noise
kept()
{
	after=$(held)
	echo "# $1: $before KiB before, $after KiB after"
	[ $((after - before)) -lt $((1024 + cycles)) ]
}

alone()
{
	tries=100
	while [ "$(cat /sys/module/"$(echo "$engine" | tr - _)"/refcnt)" != 0 ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
	[ $tries -gt 0 ]
}

# Made, run, killed
cycle()
{
	spin_up 2 && kill -KILL $pid
	killed=$?
	wait $pid 2>/dev/null
	return $killed
}

repeat()
{
	bad=0 i=0
	while [ $((i += 1)) -le "$1" ]; do "$2" || bad=1; done
	return $bad
}

reload() { rmmod "$engine" && rmmod trine && insmod /lib/modules/trine.ko && insmod "/lib/modules/$engine.ko"; }

repeat 20 cycle && alone
before=$(held)
repeat "$cycles" cycle && alone
ok $? "VMs are made, run and killed $cycles times"
kept "VMs"
ok $? "and no memory is lost"

repeat 20 reload
before=$(held)
repeat "$cycles" reload
ok $? "the modules are unloaded and loaded $cycles times"
kept "modules"
ok $? "and no memory is lost"

hundred()
{
	pids= files= bad=0
	for i in $(seq 100); do
		spin 1 >"/tmp/spin.$i" &
		pids="$pids $!" files="$files /tmp/spin.$i"
	done
	spinning $files || bad=1
	kill -TERM $pids
	for pid in $pids; do wait "$pid" || bad=1; done
	rm -f $files
	alone && [ $bad = 0 ]
}

hundred
ok $? "a hundred VMs run at once, and each still runs when it is ended"
before=$(held)
hundred
ok $? "and once more"
kept "a hundred VMs"
ok $? "and no memory is lost"

mkswap /dev/vda >/dev/null && swapon /dev/vda
ok $? "there is swap"
echo 1 >/sys/kernel/mm/ksm/run && echo 2000 >/sys/kernel/mm/ksm/pages_to_scan && echo 10 >/sys/kernel/mm/ksm/sleep_millisecs
ok $? "and KSM"
# More than there is, in two VMs that fork
mib=$(awk '/^MemTotal:/ { print int($2 / 1024 * 0.5) }' /proc/meminfo)
pressure "$mib" "$seconds" 2 & first=$!
pressure "$mib" "$seconds" 2 & second=$!
until="$(($(date +%s) + seconds))" bad=0
while [ "$(date +%s)" -lt "$until" ]; do
	for test in api-kvm-memory api-kvm-run api-kvm-irq; do
		$test >/tmp/$test || { bad=1; grep "^not ok" /tmp/$test | sed 's/^/# /'; }
	done
done
ok $bad "the API's tests pass while memory is short"
wait $first
ok $? "a guest's memory stays what it is, swapped out, merged, moved and forked"
wait $second
ok $? "and so does another's"
out=$(awk '/^pswpout / { print $2 }' /proc/vmstat)
merged=$(cat /sys/kernel/mm/ksm/full_scans)
echo "# $out pages went to the swap, KSM went through all memory $merged times"
[ "$out" -gt 0 ]
ok $? "pages were swapped out"
[ "$merged" -gt 0 ]
ok $? "pages were looked at by KSM"
echo 2 >/sys/kernel/mm/ksm/run
swapoff /dev/vda
ok $? "all of it comes back from the swap"
echo "1..$number"
