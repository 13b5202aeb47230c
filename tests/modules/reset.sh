#!/bin/sh
# The machine is reset under a VM, and has said before that it is done: run by outer.py, the last of its commands.
. /tests/vm
spin_up 1 || exit 1
echo 'outer: done'
sleep 0.5
reboot -f
sleep 60
exit 1
