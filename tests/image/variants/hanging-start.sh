#!/bin/sh
# The start never gets anywhere: a unit that everything waits for does not end, and has no time limit.
set -eu
cat > "$1/usr/lib/systemd/system/arint-hang.service" <<'CONF'
[Unit]
Description=Waits for ever
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sh -c 'while :; do sleep 3600; done'
CONF
mkdir -p "$1/usr/lib/systemd/system/sysinit.target.wants"
ln -s ../arint-hang.service "$1/usr/lib/systemd/system/sysinit.target.wants/arint-hang.service"
# Nobody waits ten minutes for what two show.
mkdir -p "$1/usr/lib/systemd/system/arint-deadline.timer.d"
printf '[Timer]\nOnBootSec=\nOnBootSec=2min\n' > "$1/usr/lib/systemd/system/arint-deadline.timer.d/90-soon.conf"
