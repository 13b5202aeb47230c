#!/bin/sh
# Runs the KVM selftests named in the arguments, on the outer machine (see selftests.py): LIMIT seconds each.
#	selftests LIMIT 'NAME ARGUMENTS'...
limit=$1
shift
for test; do
	name=${test%% *}
	echo "selftest: begin $name"
	# Marked, since some of them write TAP
	{
		timeout -s KILL "$limit" /tests/$test 2>&1
		echo $? >/tmp/status
	} | while IFS= read -r line || [ -n "$line" ]; do echo "| $line"; done
	echo "selftest: end $name $(cat /tmp/status)"
done
