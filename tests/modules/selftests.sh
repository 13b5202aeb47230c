#!/bin/sh
# Runs the KVM selftests named in the arguments, on the outer machine (see selftests.py): LIMIT seconds each.
#	selftests LIMIT NAME...
limit=$1
shift
for name; do
	echo "selftest: begin $name"
	timeout -s KILL "$limit" "/tests/$name" 2>&1
	echo "selftest: end $name $?"
done
