# stress-ng, run by root in the guest: sh /dev/vdb CPUS ARGUMENT... Prints TAP, then powers off.
# The disk that this comes from is padded with newlines.
cpus=$1
shift
cd /var/tmp || exit 1
echo "stress-ng $*"
# The stressor "resources" of this version removes the semaphore set 0, whoever has it: without this, that of "sem-sysv".
perl -e 'defined semget(0, 1, 01600) or die $!' || exit 1

# In a service of its own: the login's would be stopped as soon as a stressor has used up the memory.
{
	systemd-run --quiet --wait --pipe -p OOMPolicy=continue -p WorkingDirectory="$PWD" stress-ng "$@" </dev/null 2>&1
	echo $? >status
} | tee log | grep --line-buffered -E ': (fail|error|warn): |dispatching hogs|(passed|failed|skipped): |run completed'
status=$(cat status)

# 3 is a stressor without its resources, 4 one that this kernel cannot run: stress-ng has said which, and skipped them.
case $status in
0 | 3 | 4) echo "ok 1 - no stressor has failed" ;;
*) echo "not ok 1 - no stressor has failed"; echo "status $status"; tail -n 40 log ;;
esac
# The stressor "loop" takes its devices' files away from under them.
bad=$(dmesg | grep -E 'BUG:|Oops|WARNING:|stall|lockup|I/O error' | grep -v 'I/O error, dev loop')
if [ -z "$bad" ]; then echo "ok 2 - the kernel has nothing to complain about"
else echo "not ok 2 - the kernel has nothing to complain about"; echo "$bad"; fi
echo "1..2"
systemctl poweroff
