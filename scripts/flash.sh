#!/usr/bin/env bash
# Writes an image to a disk: shows what will be erased, asks, writes, reads back and compares.
#
# Usage: flash.sh [options] IMAGE DEVICE
#   IMAGE   image.img or image.img.zst; beside it image.img.bmap and, where there is one, SHA256SUMS
#   DEVICE  a whole disk, as /dev/sdb; or a plain file, which needs no root
#   --force-with-name NAME   also onto a disk that is not removable, if that is its name (as sdb)
#   --quiet                  no progress
# The name of the disk is asked for and read from standard input.
#
# It never writes to a disk that is mounted, holds this system, is a partition, is read-only or is too small.
# bmaptool is not used: it leaves old data wherever the image has zeros, and zeros mean something in a FAT.
#
# **Invariant:** nothing is written before the name was typed; "done" is said only after everything was read back.
set -euo pipefail
export LC_ALL=C

fail() { echo "flash: $*" >&2; exit 1; }
need() { command -v "$1" > /dev/null || fail "$1 is missing: install the Debian package $2"; }
usage() { sed -n '4,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

force='' quiet='' words=()
while [ $# -gt 0 ]; do
    case $1 in
    --force-with-name) [ $# -ge 2 ] || usage; force=$2; shift 2 ;;
    --quiet) quiet=1; shift ;;
    -*) usage ;;
    *) words+=("$1"); shift ;;
    esac
done
[ ${#words[@]} = 2 ] || usage
image=${words[0]} device=${words[1]}

[ -n "$device" ] || fail "no disk is named: DEVICE=/dev/sdX was expected; \`lsblk -d\` lists those that are there"

# --- The image.
block=4096
[ -f "$image" ] || fail "there is no image \`$image\`: build one with \`make bench-image\` or \`make image BOARD=…\`"
need sha256sum coreutils
case $image in
*.zst) need zstd zstd; plain=${image%.zst}; open_image() { zstd -qdc -- "$image"; } ;;
*) plain=$image; open_image() { cat -- "$image"; } ;;
esac
map=$plain.bmap
[ -f "$map" ] || fail "the block map \`$map\` is missing: it says what to write and how to check it, and lies beside the image"
field() { sed -n "s|.*<$1> *\([^ ]*\) *</$1>.*|\1|p" "$map" | head -n 1; }
size=$(field ImageSize)
if [ "$(field BlockSize)" != $block ] || [ "$(field ChecksumType)" != sha256 ] || [ -z "$size" ]; then
    fail "\`$map\` is no block map with SHA-256 over blocks of $block bytes"
fi
stated=$(field BmapFileChecksum)
found=$(sed "s/$stated/$(printf '0%.0s' {1..64})/" "$map" | sha256sum | cut -c1-64)
[ "$stated" = "$found" ] || fail "\`$map\` is damaged: its own checksum does not fit; fetch it again"
blocks=$(((size + block - 1) / block))
sums=$(dirname "$image")/SHA256SUMS
if [ -f "$sums" ]; then
    for file in "$image" "$map"; do
        wanted=$(awk -v name="$(basename "$file")" '$2 == name || $2 == "*" name { print $1 }' "$sums" | head -n 1)
        [ -z "$wanted" ] || [ "$wanted" = "$(sha256sum < "$file" | cut -c1-64)" ] \
            || fail "\`$file\` is damaged: its checksum is not the one in \`$sums\`; fetch it again"
    done
fi
# Lines `checksum first last`.
ranges=$(sed -n 's|.*<Range chksum="\([0-9a-f]*\)"> *\([0-9]*\)-*\([0-9]*\) *</Range>.*|\1 \2 \3|p' "$map" \
    | awk '{ print $1, $2, ($3 == "" ? $2 : $3) }')

# --- The disk.
human() { awk -v bytes="$1" 'BEGIN { if (bytes >= 1e9) printf "%.1f GB", bytes / 1e9; else printf "%.1f MB", bytes / 1e6 }'; }

# Names of a disk, its partitions and everything that stands on them (dm, md), one a line.
family() {
    local entry part
    echo "$1"
    for part in "/sys/class/block/$1/$1"*; do
        if [ -e "$part/partition" ]; then family "$(basename "$part")"; fi
    done
    for entry in "/sys/class/block/$1/holders/"*; do
        if [ -e "$entry" ]; then family "$(basename "$entry")"; fi
    done
}

# Where a device is mounted, as by its number; swap counts.
uses() {
    local number
    number=$(cat "/sys/class/block/$1/dev")
    awk -v number="$number" '$3 == number { print $5 }' /proc/self/mountinfo
    awk -v path="/dev/$1" '$1 == path { print "swap" }' /proc/swaps
}

check_disk() {
    local member use
    if ! [ -r "$device" ] || ! [ -w "$device" ]; then
        fail "\`$device\` cannot be written by this user: call this as root (sudo)"
    fi
    name=$(basename "$(realpath "$device")")
    [ -d "/sys/class/block/$name" ] || fail "\`$device\` is unknown to the kernel"
    if [ -e "/sys/class/block/$name/partition" ]; then
        fail "\`$device\` is a partition: name the disk it is on, /dev/$(basename "$(realpath "/sys/class/block/$name/..")")"
    fi
    for member in $(family "$name"); do
        while read -r use; do
            case $use in
            '') ;;
            / | /boot | /boot/* | /usr | /efi) fail "\`$device\` holds this system (\`$use\` is on $member): it is never written to" ;;
            swap) fail "\`$device\` is in use: $member is swap; switch it off first (swapoff /dev/$member)" ;;
            *) fail "\`$device\` is mounted: $member at \`$use\`; unmount it first (umount $use)" ;;
            esac
        done < <(uses "$member")
    done
    [ "$(cat "/sys/class/block/$name/ro")" = 0 ] || fail "\`$device\` is read-only: look for the switch on the card"
    for member in $(family "$name"); do
        [ "$member" = "$name" ] || [ -e "/sys/class/block/$member/partition" ] \
            || fail "\`$device\` is in use by $member: stop that first"
    done
    capacity=$(($(cat "/sys/class/block/$name/size") * 512))
    # Removable, or on a bus whose disks are plugged in by hand.
    where=$(realpath "/sys/class/block/$name/device" 2> /dev/null || echo none)
    removable=$(cat "/sys/class/block/$name/removable")
    case $where in */usb[0-9]*) removable=1 ;; esac
    if [ "$(cat "/sys/class/block/$name/device/type" 2> /dev/null || true)" = SD ]; then removable=1; fi
    if [ "$removable" = 0 ] && [ "$force" != "$name" ]; then
        if [ -n "$force" ]; then fail "--force-with-name says \`$force\`, and the disk is \`$name\`"; fi
        fail "\`$device\` is not removable, so it may be this machine's own: if you mean it, add --force-with-name $name"
    fi
}

show_disk() {
    local part
    model=$(cat "/sys/class/block/$name/device/model" "/sys/class/block/$name/device/name" 2> /dev/null | head -n 1 | sed 's/ *$//' || true)
    echo "This will be erased:"
    printf '  %s  %s  %s\n' "$device" "$(human "$capacity")" "${model:-(no model name)}"
    for part in "/sys/class/block/$name/$name"*; do
        [ -e "$part/partition" ] || continue
        printf '    %s  %s  %s\n' "$(basename "$part")" "$(human $(($(cat "$part/size") * 512)))" \
            "$(sed -n 's/^PARTNAME=//p' "$part/uevent")"
    done
}

if [ -b "$device" ]; then
    is_disk=1
    check_disk
    [ "$capacity" -ge "$size" ] || fail "\`$device\` has $(human "$capacity"), and the image needs $(human "$size")"
    show_disk
    printf 'To go on, type the name of the disk (%s): ' "$name"
    read -r answer || answer=
    [ "$answer" = "$name" ] || fail "\`$answer\` is not \`$name\`: nothing was written"
else
    case $(realpath -m "$device") in
    /dev/*) fail "there is no disk \`$device\`: \`lsblk -d\` lists those that are there" ;;
    esac
    [ ! -e "$device" ] || [ -f "$device" ] || fail "\`$device\` is neither a disk nor a plain file"
    is_disk=''
    : > "$device" || fail "\`$device\` cannot be written"
    truncate -s "$size" "$device" || fail "\`$device\` cannot be made $(human "$size") large: is the disk full?"
fi

# --- Writing.
last_shown=-1
progress() { # word, blocks done, blocks in all
    [ -z "$quiet" ] || return 0
    local percent=$(($2 * 100 / ($3 > 0 ? $3 : 1)))
    if [ -t 2 ]; then
        printf '\r%s: %3d %% of %s' "$1" "$percent" "$(human $(($3 * block)))" >&2
        [ "$percent" -lt 100 ] || echo >&2
    elif [ $((percent / 25)) != "$last_shown" ]; then
        last_shown=$((percent / 25))
        echo "$1: $percent %" >&2
    fi
}

# Blocks that the image has zeros in: by the drive's own means where it has them, else written.
zero() { # first, count
    [ -n "$is_disk" ] || return 0
    local first=$1 count=$2
    [ "$count" -gt 0 ] || return 0
    if command -v blkdiscard > /dev/null \
        && blkdiscard -q -z -o $((first * block)) -l $((count * block)) "$device" 2> /dev/null; then return 0; fi
    dd if=/dev/zero of="$device" bs=$block seek="$first" count="$count" conv=notrunc status=none 2> /dev/null \
        || fail "writing zeros to \`$device\` failed at block $first: the disk is broken or was taken out"
}

chunk=16384
write_ranges() {
    local at=0 checksum first last count now read_blocks
    while read -r -u 3 checksum first last; do
        [ -n "$checksum" ] || continue
        # What lies between is zeros, and comes through the pipe all the same.
        if [ "$first" -gt "$at" ]; then
            zero "$at" $((first - at))
            dd bs=$block count=$((first - at)) iflag=fullblock of=/dev/null status=none
            at=$first
        fi
        while [ "$at" -le "$last" ]; do
            count=$((last - at + 1))
            [ "$count" -le $chunk ] || count=$chunk
            now=$(dd bs=$block count="$count" iflag=fullblock of="$device" seek="$at" conv=notrunc 2>&1) \
                || fail "writing to \`$device\` failed at block $at: ${now##*$'\n'}; the disk is broken, full or was taken out"
            read_blocks=$(sed -n 's/^\([0-9]*\)+\([0-9]*\) records in$/\1 \2/p' <<< "$now")
            [ $((${read_blocks% *} + ${read_blocks#* })) = "$count" ] \
                || fail "the image \`$image\` ended before block $((at + count)): it is damaged; fetch it again"
            at=$((at + count))
            progress writing "$at" "$blocks"
        done
    done 3<<< "$ranges"
    zero "$at" $((blocks - at))
    cat > /dev/null
}

open_image | write_ranges || fail "the image \`$image\` could not be written; \`$device\` is of no use as it is"
progress writing "$blocks" "$blocks"
if [ -n "$is_disk" ]; then
    # Old tables and file systems behind the image are not found by accident: its end, and where `state` will begin.
    tail_blocks=$(((capacity - size) / block))
    [ "$tail_blocks" -le 4096 ] || tail_blocks=4096
    zero "$blocks" "$tail_blocks"
    [ $((capacity / block - blocks)) -le 8192 ] || zero $((capacity / block - 256)) 256
fi
sync "$device" 2> /dev/null || fail "\`$device\` did not take everything: writing back failed; the disk is broken or was taken out"

# --- Reading back, past what the kernel remembers.
if [ -n "$is_disk" ]; then
    blockdev --flushbufs "$device" 2> /dev/null || true
else
    dd of="$device" oflag=nocache conv=notrunc,fdatasync count=0 status=none 2> /dev/null || true
fi
last_shown=-1 checked=0
mapped=$(awk '{ sum += $3 - $2 + 1 } END { print sum + 0 }' <<< "$ranges")
while read -r checksum first last; do
    [ -n "$checksum" ] || continue
    count=$((last - first + 1))
    # The image need not end with a whole block.
    bytes=$((count * block))
    [ $((first * block + bytes)) -le "$size" ] || bytes=$((size - first * block))
    got=$(dd if="$device" bs=$block skip="$first" count="$count" status=none 2> /dev/null | head -c "$bytes" | sha256sum | cut -c1-64) \
        || fail "reading \`$device\` back failed at block $first: the disk is broken"
    [ "$got" = "$checksum" ] || fail "\`$device\` did not keep what was written (blocks $first to $last): the disk is broken; use another one"
    checked=$((checked + count))
    progress checking "$checked" "$mapped"
done <<< "$ranges"

if [ -n "$is_disk" ]; then blockdev --rereadpt "$device" 2> /dev/null || true; fi
echo "done: $(human "$size") on $device, read back and compared; it can be taken out"
