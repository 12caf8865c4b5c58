#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# First and only process tree of the kernel61 guest: mounts, runs the probe and the tests, leaves a tar on the third disk, powers off.
#
# In: /mnt/packed (the repository and its Python packages, read-only, the second disk), credwire.* words of the kernel command line.
# Out: /dev/vdc holds a tar with junit.xml, probe.json and status; the console carries the same for people.
# bash stays pid 1 because somebody must reap what the tests leave behind.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
say() { echo "credwire-vm: $*"; }

power_off() {
	sync
	echo 1 >/proc/sys/kernel/sysrq
	echo o >/proc/sysrq-trigger
	# ACPI needs a moment; should it never answer, qemu's -no-reboot ends the machine at the reset below
	read -r -t 20 _ <>/dev/ttyS0
	echo b >/proc/sysrq-trigger
}
trap power_off EXIT

mount -t proc proc /proc -o nosuid,nodev,noexec 2>/dev/null
mount -t sysfs sys /sys -o nosuid,nodev,noexec 2>/dev/null
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /results /work
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t tmpfs results /results
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpffs /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
ip link add outward type dummy && ip link set outward up
hostname credwire-vm
printf '127.0.0.1 localhost credwire-vm\n::1 localhost\n' >/etc/hosts
say "userspace after $(cut -d' ' -f1 /proc/uptime) s, kernel $(uname -r)"

# Tests write caches and build results beside the sources, so the read-only disk gets a writable layer.
mkdir -p /mnt/layer
mount -t tmpfs layer /mnt/layer
mkdir -p /mnt/layer/up /mnt/layer/tmp
mount -t overlay overlay -o lowerdir=/mnt/packed/repo,upperdir=/mnt/layer/up,workdir=/mnt/layer/tmp /work
# A .pth file rather than PYTHONPATH: tests start processes with an environment of their own.
printf '/work\n/mnt/packed/site\n' >/usr/local/lib/python3.11/dist-packages/credwire.pth
export PYTHONDONTWRITEBYTECODE=1
cd /work || exit

status=0
say "probe"
python3 tests/suites/kernel61/probe.py >/results/probe.json || status=$?
cat /results/probe.json

word=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^credwire\.tests=//p')
if [ "$status" = 0 ] && [ -n "$word" ]; then
	IFS=, read -ra paths <<<"$word"
	say "tests ${paths[*]}"
	# The clock of an emulated machine runs slower than its tests' authors thought: five times the usual limit.
	python3 -m pytest -p no:cacheprovider -o timeout=300 --color=no --junitxml=/results/junit.xml "${paths[@]}" </dev/null
	status=$?
fi
echo "$status" >/results/status
tar -cf /dev/vdc -C /results .
say "done with status $status after $(cut -d' ' -f1 /proc/uptime) s"
