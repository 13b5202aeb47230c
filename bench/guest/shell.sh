# What the row "shell" runs: shell.sh TEXT. Loops, arithmetic, patterns, functions, substitutions, pipes, small programs.
sum=0
i=0
while [ $i -lt 100 ]; do
	sum=$((sum + i))
	i=$((i + 1))
done

count() {
	echo $#
}
words=$(count $(echo alpha beta gamma delta epsilon | tr a-z A-Z) $(seq 5))

fizz=0
for n in $(seq 1 83); do
	case $((n % 3)) in
	0) fizz=$((fizz + 1)) ;;
	esac
done

for name in alpha beta gamma delta; do
	for n in 0 1 2 3 4 5 6 7 8 9; do
		last=$name-$n
		echo "$last"
	done
done >/tmp/bench-shell.$$
lines=$(wc -l </tmp/bench-shell.$$)
for pattern in alpha beta CONFIG_X86 CONFIG_VIRTIO; do
	grep -c "$pattern" "$1" >/dev/null
done
top=$(printf 'aa\nzz\nmm\n' | sort -r | head -n 1)
sed 's/-/ /' /tmp/bench-shell.$$ | cut -d ' ' -f 2 | uniq >/dev/null
rm /tmp/bench-shell.$$
echo "sum $sum words $words fizz $fizz last $last lines $lines top $top"
