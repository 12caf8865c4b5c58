#!/bin/sh
# Make DIRECTORY the root of this mount namespace, then run PROGRAM there.
#
# usage: unshare --mount -- sh enter.sh DIRECTORY READONLY[:READONLY...] PROGRAM [ARGUMENT...]
# The root is changed with pivot_root and not with chroot: who joins these mounts later (setns) lands at the namespace's root,
# which under chroot would still be the host's.  Pids and network stay the machine's, because the kernel's records count in those.
set -eu
root=$1 readonly=$2
shift 2

mount --bind "$root" "$root"
for place in proc sys dev; do
  mount --rbind "/$place" "$root/$place"
done
if [ -n "${CREDWIRE_ALONE:-}" ]; then # the cgroup namespace begins at the cgroup we are in; a pin elsewhere would outlive us
  mount -t cgroup2 none "$root/sys/fs/cgroup"
  mount -t bpf none "$root/sys/fs/bpf"
fi
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$root/run"
IFS=:
for path in $readonly; do # package sources that this machine keeps in directories of its own
  mkdir -p "$root$path"
  mount --bind "$path" "$root$path"
  mount -o remount,bind,ro "$root$path"
done
unset IFS
cd "$root"
pivot_root . mnt
umount --lazy /mnt
exec "$@"
