#!/bin/sh
# Every unit is active, but no request passes: the balancer says it is ready and listens to nobody.
set -eu
mkdir -p "$1/usr/lib/systemd/system/arldb.service.d" "$1/etc/arint"
cat > "$1/usr/lib/systemd/system/arldb.service.d/90-broken.conf" <<'CONF'
[Service]
NotifyAccess=all
WatchdogSec=0
ExecStart=
ExecStart=/bin/sh -c 'systemd-notify --ready; exec sleep infinity'
CONF
# It is not to be waited for as long as a sound one.
echo 'confirm_limit_s = 120' >> "$1/etc/arint/aros.toml"
