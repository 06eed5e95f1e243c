#!/bin/sh
# From a base root (Debian's or Buildroot's) to the root of a box: our programs, the overlay, users, units, what
# os-release says.  Writes to the folder only; what a board is comes from hw/.
#
# Usage: root.sh ROOT ARINT
# Environment: VERSION, BOARD, COMPATIBLE, KEYS, SOURCE_DATE_EPOCH, VARIANT (default bench);
#              SYSTEMD_SYSUSERS, SYSTEMCTL
set -eu

root=$1 arint=$2
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
: "${SOURCE_DATE_EPOCH:?}" "${VERSION:?}" "${COMPATIBLE:?}" "${BOARD:?}" "${KEYS:?}"
SYSTEMD_SYSUSERS=${SYSTEMD_SYSUSERS:-systemd-sysusers} SYSTEMCTL=${SYSTEMCTL:-systemctl}

# Our programs: one file, called by many names.
install -D -m 0755 "$arint" "$root/usr/bin/arint"
for name in arclst arsrv arldb arwadm aros arctl; do ln -sfn arint "$root/usr/bin/$name"; done

# The overlay, as it lies on the device; without what explains it in the checkout.
(cd "$top/buildroot-overlay" && find . -mindepth 1 ! -name README.md ! -name .empty | LC_ALL=C sort) | while read -r path; do
    from=$top/buildroot-overlay/$path
    if [ -h "$from" ]; then mkdir -p "$(dirname "$root/$path")"; ln -sfn "$(readlink "$from")" "$root/$path"
    elif [ -d "$from" ]; then [ -d "$root/$path" ] || install -d -m 0755 "$root/$path"
    elif [ -x "$from" ]; then install -D -m 0755 "$from" "$root/$path"
    else install -D -m 0644 "$from" "$root/$path"; fi
done

install -D -m 0644 "$KEYS/ca.crt" "$root/etc/rauc/keyring.pem"
install -D -m 0644 "$KEYS/seed.pub" "$root/usr/share/arint/seed.pub"
install -D -m 0644 "$top/hw/$BOARD/board.toml" "$root/usr/share/arint/board.toml"

rm -f "$root/usr/lib/os-release" "$root/etc/os-release"
cat > "$root/usr/lib/os-release" <<OS
ID=arint
NAME=ARINT
PRETTY_NAME="ARINT $VERSION"
VERSION_ID=$VERSION
VARIANT_ID=${VARIANT:-bench}
IMAGE_ID=$COMPATIBLE
IMAGE_VERSION=$VERSION
OS
ln -s ../usr/lib/os-release "$root/etc/os-release"
# No clock is ever before this (systemd sets it so at the start).
: > "$root/usr/lib/clock-epoch"
touch -d "@$SOURCE_DATE_EPOCH" "$root/usr/lib/clock-epoch"

# Places to mount at; /var is empty, as `state` is mounted there.
for dir in boot efi data var run tmp home media mnt opt srv; do rm -rf "${root:?}/$dir"; done
for dir in efi data var run tmp home mnt opt srv dev proc sys; do install -d -m 0755 "$root/$dir"; done
chmod 1777 "$root/tmp"
install -d -m 0700 "$root/root"
ln -sfn ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
ln -sfn ../proc/self/mounts "$root/etc/mtab"
rm -f "$root/etc/localtime"; ln -s ../usr/share/zoneinfo/UTC "$root/etc/localtime"
# The first stage writes the real one; the word keeps systemd from taking this for a first boot.
echo uninitialized > "$root/etc/machine-id"
chmod 0444 "$root/etc/machine-id"
rm -f "$root/etc/fstab" "$root/var/lib/systemd/random-seed"

# Users with the numbers of the overlay's list; nobody has a password.
$SYSTEMD_SYSUSERS --root="$root" >&2
rm -f "$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/.pwd.lock
# The day of the last change would be the day of the build.
[ ! -e "$root/etc/shadow" ] || awk -F: 'BEGIN { OFS = ":" } { $2 = "!*"; $3 = ""; print }' "$root/etc/shadow" > "$root/etc/shadow.new"
[ ! -e "$root/etc/shadow.new" ] || { cat "$root/etc/shadow.new" > "$root/etc/shadow"; rm "$root/etc/shadow.new"; }

# Units are on or off as the overlay's preset says, and by nothing else.
find "$root/etc/systemd/system" -mindepth 1 -type l -delete 2>/dev/null || true
find "$root/etc/systemd/system" -mindepth 1 -type d -empty -delete 2>/dev/null || true
$SYSTEMCTL --root="$root" preset-all --preset-mode=enable-only 2>&1 | grep -v '^Created symlink' >&2 || true
