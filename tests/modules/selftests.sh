#!/bin/sh
# Runs the KVM selftests named in the arguments, on the outer machine (see selftests.py): LIMIT seconds each.
#	selftests LIMIT 'NAME ARGUMENTS'...
limit=$1
shift
for test; do
	echo "selftest: begin $test"
	# Marked, since some of them write TAP
	{
		timeout -s KILL "$limit" /tests/$test 2>&1
		echo $? >/tmp/status
	} | while IFS= read -r line || [ -n "$line" ]; do echo "| $line"; done
	echo "selftest: end $test = $(cat /tmp/status)"
done
