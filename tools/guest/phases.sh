#!/bin/sh
# The fixed guest script of the benchmarks and of the guest tests: `MARK x` is printed when phase x has ended. All
# output is the same on every machine.

mark() { echo "MARK $1"; }

mark mounts

i=0
while [ $i -lt 20000 ]; do i=$((i + 1)); done
echo "counted to $i"
mark shell-loop

i=0
while [ $i -lt 200 ]; do
    /bin/busybox true # by its path, or the shell would not even fork
    i=$((i + 1))
done
mark forks

dd if=/dev/zero of=/tmp/zeros bs=1M count=16 2>/dev/null
mark dd

sha256sum /tmp/zeros
mark sha256sum

python3 -c 'print("python3 is up")'
mark python-start

python3 /bench/workload.py
mark python

perl /bench/workload.pl
mark perl

# Behind the end of the script proper.
i=0
while [ $i -lt 500 ]; do
    /bin/busybox true
    i=$((i + 1))
done
mark forks-500
