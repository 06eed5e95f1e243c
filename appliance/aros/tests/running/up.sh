#!/bin/sh
# Brings up what a box has beside our own units, in the name spaces it is started in: a private /etc and /run, the
# system bus, journald and networkd of this machine's systemd (the bus starts hostnamed and timedated), and a cable
# (end0 to lan0).
# Ends, with all it started, when the test that started it has ended.
# usage: up.sh FOLDER PID-OF-THE-TEST
set -eu
dir=$1
test=$2

(
    while [ -d "/proc/$test" ]; do sleep 1; done
    kill -KILL 0
) &

mount --make-rprivate /
# Read-only, so that networkd does not wait for udev; mounted here, so that it shows this network name space.
# journald asks for control groups below it.
mkdir "$dir/cgroup"
mount --rbind /sys/fs/cgroup "$dir/cgroup"
mount -t sysfs -o ro sysfs /sys
mount --rbind "$dir/cgroup" /sys/fs/cgroup
cp -a /etc "$dir/etc"
mount --bind "$dir/etc" /etc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/dbus /run/log/journal /run/systemd/journal /run/systemd/netif/links \
    /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/network
chown -R systemd-network /run/systemd/netif
cp "$dir/60-arint-wired.network" /run/systemd/network/
rm -f /etc/hostname /etc/localtime
printf 'root:*:19000::::::\nsupport:!*:19000::::::\n' > /etc/shadow

ip link set lo up
ip link add end0 type veth peer name lan0
ip link set lan0 up

dbus-daemon --config-file="$dir/bus.conf" --nofork --nopidfile --nosyslog &
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
for service in journald networkd; do
    "/usr/lib/systemd/systemd-$service" &
done
until logger --socket-errors=on --socket /run/systemd/journal/dev-log up 2>/dev/null; do sleep 0.05; done
until dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner \
    string:org.freedesktop.network1 > /dev/null 2>&1; do sleep 0.05; done
touch "$dir/up"
wait
