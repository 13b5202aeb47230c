#!/bin/sh
# Runs the KVM selftests named in the arguments, on the outer machine (see selftests.py): LIMIT seconds each.
#	selftests LIMIT 'NAME ARGUMENTS'...
limit=$1
shift
# Some look whether the machine's clock is its TSC, which the kernel is sure of a while after it came up
clock=/sys/devices/system/clocksource/clocksource0/current_clocksource
tries=60
while [ "$(cat $clock)" != tsc ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.5; done
echo "clock: $(cat $clock)"
for test; do
	echo "selftest: begin $test"
	# Marked, since some of them write TAP
	{
		timeout -s KILL "$limit" /tests/$test 2>&1
		echo $? >/tmp/status
	} | while IFS= read -r line || [ -n "$line" ]; do echo "| $line"; done
	echo "selftest: end $test = $(cat /tmp/status)"
done
