# The partitions of a box, written once: sourced by the steps beside it and by whoever checks an image.
# It makes nothing.  `state` and `data` are made on the box, at its first start, by systemd-repart.
# shellcheck shell=sh disable=SC2034  # the variables are for those who source this

# Sizes in MiB, in the order on the disk.
LAYOUT_PARTITIONS="esp boot-a boot-b slot-a slot-b recovery blackbox"
LAYOUT_MIB_esp=256
LAYOUT_MIB_boot=64
LAYOUT_MIB_slot=512
LAYOUT_MIB_recovery=512
LAYOUT_MIB_blackbox=8

# Types of our own: systemd must neither mount nor reuse a partition by itself.
# They are UUIDs of version 5 of `arint:type:<name>` in the name space of DNS names.
TYPE_esp=c12a7328-f81f-11d2-ba4b-00a0c93ec93b
TYPE_boot=4ab2ad0c-4f8e-5e88-bb07-4ed488f3e4af
TYPE_slot=ea441909-8893-5396-a27c-8d027dc234d4
TYPE_recovery=2ad235cb-d89c-5026-8ce9-745020b0c0b4
TYPE_blackbox=6e17deb9-f0e6-531e-b2f0-8133ae74861f
TYPE_state=e944b984-fc41-5133-9859-6bce59f4a9b6
TYPE_data=860ca9b9-e6bd-56cd-8e75-eda0d5218db3

# The same in every image; a box gives its disk and its ESP new ones at its first start, and the installer does for the
# disk it writes, so that no two disks of one machine are taken for each other.  The others may stay: partitions are
# found by label, on the disk that the boot loader came from.
UUID_disk=2e550940-f638-56f6-a154-c0041de9fab9
UUID_esp=33a121c7-2a8a-59ae-be3a-0c01d9e63416
# A stick with the installer is not to be taken for a disk that has the image and was never started.
UUID_installer_disk=5d2b346d-b6f8-570e-a3e2-e7884c133bc9
UUID_installer_esp=59b9933f-f29a-5bcd-8e11-bed4ef02955b
UUID_boot_a=d4482e3f-7fee-5fb9-a486-72e9126b74b7
UUID_boot_b=c353d867-46c9-5401-9395-904910143c28
UUID_slot_a=33e6557f-2531-53ff-b907-9411d0f44efb
UUID_slot_b=d93380fc-98c8-530d-84d2-48dbd81a294b
UUID_recovery=40099b75-eb54-51a6-91c9-a15ce6f3fcb0
UUID_blackbox=76fd40c5-4db5-5327-bb84-0bfcfb2f0a42
UUID_rootfs=011a1f7f-70c5-56d7-b064-74abf26442b4
VOLUME_esp=4152494e
