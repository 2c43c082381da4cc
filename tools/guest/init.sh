#!/bin/sh
# PID 1 of Hibana's initramfs. A second archive may bring /job/run: then that is what this microVM is for. Without one,
# there is a shell on the serial console. Whatever was run, its end is the end of the microVM.

export PATH=/bin:/usr/bin HOME=/ PS1='hibana:\w# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
hostname hibana

if [ -x /job/run ]; then
    /job/run
else
    echo "$(uname -sr), CPUs: $(nproc). The microVM ends with this shell: exit, or reboot -f."
    # /dev/console cannot be a controlling terminal, so without this there is no Ctrl-C and no job control.
    setsid -c sh -i <>/dev/ttyS0 >&0 2>&1
fi

stty opost # returns when the last byte has left the port
reboot -f
