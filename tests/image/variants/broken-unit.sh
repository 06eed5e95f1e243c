#!/bin/sh
# The core of the integrator does not start any more.
set -eu
mkdir -p "$1/usr/lib/systemd/system/arsrv.service.d" "$1/etc/arint"
printf '[Service]\nExecStart=\nExecStart=/bin/false\n' > "$1/usr/lib/systemd/system/arsrv.service.d/90-broken.conf"
# It is not to be waited for as long as a sound one.
echo 'confirm_limit_s = 120' >> "$1/etc/arint/aros.toml"
