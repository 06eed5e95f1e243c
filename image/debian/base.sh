#!/bin/sh
# Makes the part of the root that changes rarely: Debian's packages without what a box has no use for, the kernel's
# modules, the workers' Python packages.  Runs in the tools' tree.
# Usage: base.sh PACKED WHEELS TARGET
#   PACKED  the root's packages (.tar) and the kernel's (.deb), without the endings
set -eu
packed=$1 wheels=$2 target=$3
here=$(cd "$(dirname "$0")" && pwd)

rm -rf "$target.new"
mkdir -p "$target.new/root" "$target.new/kernel"
root=$target.new/root
tar -x -f "$packed.tar" -C "$root" --exclude='./dev/*' --numeric-owner

# The list of packages, before dpkg's own files go: what is in the image is told by it (sbom.py).
# shellcheck disable=SC2016  # dpkg's own names
chroot "$root" dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n' \
    > "$target.new/packages"
mkdir "$target.new/lists"
cp "$root"/var/lib/dpkg/info/*.list "$target.new/lists/"

sed 's/#.*//' "$here/purge.list" | while read -r kind what; do
    case $kind in
    package)
        list=
        for list in "$target.new/lists/$what.list" "$target.new/lists/$what:amd64.list"; do [ -e "$list" ] && break; done
        [ -e "$list" ] || { echo "base.sh: purge.list names the package \`$what\`, which is not installed" >&2; exit 1; }
        while read -r path; do
            if [ -f "$root$path" ] || [ -h "$root$path" ]; then rm -f "$root$path"; fi
        done < "$list"
        sed -i "/^$what\t/d" "$target.new/packages"
        ;;
    path) # shellcheck disable=SC2086  # a pattern
        (cd "$root" && rm -rf $what) ;;
    '') ;;
    *) echo "base.sh: purge.list says \`$kind\`; package or path was expected" >&2; exit 1 ;;
    esac
done
rm -rf "$target.new/lists"

# The kernel: its image beside the root, its modules in it.
mkdir "$target.new/deb"
dpkg-deb -x "$packed.deb" "$target.new/deb"
dpkg-deb -f "$packed.deb" Package Version | awk '{ print $2 }' | paste -sd '\t' \
    | awk -F '\t' '{ printf "%s\t%s\tamd64\tlinux\t%s\n", $1, $2, $2 }' >> "$target.new/packages"
cp "$target.new"/deb/boot/vmlinuz-* "$target.new/kernel/vmlinuz"
cp "$target.new"/deb/boot/config-* "$target.new/kernel/config"
release=$(basename "$target.new"/deb/usr/lib/modules/*)
echo "$release" > "$target.new/kernel/release"
mkdir -p "$root/usr/lib/modules"
mv "$target.new/deb/usr/lib/modules/$release" "$root/usr/lib/modules/"
rm -rf "$target.new/deb"
sed 's/#.*//' "$here/modules.drop" | while read -r folder; do
    [ -z "$folder" ] || rm -rf "$root/usr/lib/modules/$release/kernel/$folder"
done
rm -f "$root/usr/lib/modules/$release/build" "$root/usr/lib/modules/$release/source"
depmod -b "$root/usr" "$release" 2>/dev/null || depmod -b "$root" "$release"

# Python: packages beside Debian's own; compiled here, valid whatever the files' times are.
# One process: what a compiled file looks like depends on which were compiled before it.
mkdir -p "$root/usr/lib/arint/python"
cp -r "$wheels/." "$root/usr/lib/arint/python/"
echo /usr/lib/arint/python > "$root/usr/lib/python3/dist-packages/arint.pth"
# RECORD has the hash of programs that pip writes for whoever calls it, with the path of that Python in them.
rm -f "$root"/usr/lib/arint/python/*.dist-info/RECORD
find "$root/usr" -name __pycache__ -type d -prune -exec rm -rf {} +
find "$root/usr/lib/arint/python" \( -name tests -o -name test -o -name '*.pyi' -o -name '*.pyx' -o -name '*.c' -o -name '*.pxd' \) -prune -exec rm -rf {} +
python3 -m compileall -q --invalidation-mode unchecked-hash -s "$root" -p / \
    "$root/usr/lib/python3.13" "$root/usr/lib/python3" "$root/usr/lib/arint/python" > /dev/null

# Terminals that a serial line or a screen has.
find "$root/usr/share/terminfo" "$root/usr/lib/terminfo" "$root/etc/terminfo" -type f 2>/dev/null \
    | grep -v '/\(linux\|vt100\|vt102\|vt220\|xterm\|xterm-256color\|dumb\|ansi\)$' | xargs -r rm -f
# A library is used by its name of the interface; programs of packages that are gone leave links behind.
find "$root/usr" "$root/etc/alternatives" -xtype l -lname '*perl*' -delete 2>/dev/null || true

rm -rf "$target"
mv "$target.new" "$target"
