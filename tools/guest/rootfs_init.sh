#!/bin/sh
# PID 1 of Hibana's root file system. The initramfs has mounted /dev, /proc, /sys and /run and set up the network; it may
# have brought /run/job/run: then that is what this microVM is for. Without one, there is a shell on the serial console.
# Whatever was run, its end is the end of the microVM.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
hostname -F /etc/hostname
cd /root || exit

if [ -x /run/job/run ]; then
    /run/job/run
else
    echo "$(uname -sr), CPUs: $(nproc). The microVM ends with this shell: exit, or busybox reboot -f."
    # /dev/console cannot be a controlling terminal, so without this there is no Ctrl-C and no job control.
    setsid -c bash -i <>/dev/ttyS0 >&0 2>&1
fi

stty opost # returns when the last byte has left the port
mount -o remount,ro /
busybox reboot -f
