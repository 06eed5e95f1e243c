################################################################################
#
# what this tree adds to Buildroot: the package arint, and systemd-boot on arm64
#
################################################################################

include $(sort $(wildcard $(BR2_EXTERNAL_ARINT_PATH)/package/*/*.mk))

# This release offers systemd-boot on x86 only, though systemd builds it for
# arm64 as well, and later releases of Buildroot do no more than this.
ifeq ($(BR2_PACKAGE_ARINT_SYSTEMD_BOOT_AARCH64),y)
SYSTEMD_CONF_OPTS += -Dbootloader=enabled
$(SYSTEMD_TARGET_CONFIGURE): | host-python-pyelftools
endif
