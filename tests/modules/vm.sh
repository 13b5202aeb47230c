# For the scripts that outer.py runs: their verdicts, and a VM that runs meanwhile. Sourced.
number=0
ok()
{
	number=$((number + 1))
	[ "$1" = 0 ] && echo "ok $number - $2" || echo "not ok $number - $2"
}

# Until what spin writes into each of these files says that its VM runs
spinning()
{
	tries=600
	while [ "$(cat "$@" 2>/dev/null | grep -c spinning)" != $# ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
	[ $tries -gt 0 ]
}

# spin with these arguments, until spin_down
spin_up()
{
	rm -f /tmp/spin
	spin "$@" >/tmp/spin &
	pid=$!
	spinning /tmp/spin
}

spin_down()
{
	kill -TERM $pid
	wait $pid
}

# Each CPU's EFER, 0xc0000080, has SVME, bit 12, set: $1 1; clear: 0. With the module msr.
svme()
{
	for cpu in /dev/cpu/*/msr; do
		# shellcheck disable=SC2046 # its bytes
		set -- "$1" $(dd if="$cpu" bs=8 skip=$((0xc0000080 / 8)) count=1 2>/dev/null | od -An -tu1)
		[ $# = 9 ] && [ $(($3 >> 4 & 1)) = "$1" ] || { echo "# $cpu: EFER $*"; return 1; }
	done
}
