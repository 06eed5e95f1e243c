################################################################################
#
# arint
#
################################################################################

# The repository itself is the source: cargo has built the executables for the
# board's target, ARINT_BINARIES names their folder, nothing is compiled here.
ARINT_SITE = $(BR2_EXTERNAL_ARINT_PATH)/package/arint
ARINT_SITE_METHOD = local
ARINT_VERSION = $(or $(ARINT_IMAGE_VERSION),0.0.0)
ARINT_LICENSE = RENware proprietary
ARINT_REDISTRIBUTE = NO
ARINT_DEPENDENCIES = python3

# What one executable is called by; each unit looks at its own name.
ARINT_LINKS = arclst arsrv arldb arwadm aros arctl

define ARINT_CONFIGURE_CMDS
	@test -n "$(ARINT_BINARIES)" || { \
		echo "ARINT_BINARIES does not name the folder with arint and arinit built for $(BR2_ARCH): call make image in the repository, which builds them" >&2; \
		exit 1; \
	}
	@for program in arint arinit; do \
		test -x "$(ARINT_BINARIES)/$$program" || { \
			echo "$(ARINT_BINARIES)/$$program is missing: build it with cargo for $(BR2_ARCH) first" >&2; \
			exit 1; \
		}; \
	done
endef

define ARINT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(ARINT_BINARIES)/arint $(TARGET_DIR)/usr/bin/arint
	$(foreach link,$(ARINT_LINKS),\
		ln -sf arint $(TARGET_DIR)/usr/bin/$(link)
	)
endef

# The steps after the build lay it over once more, as for every base, and put
# the first stage into the kernel image.
ARINT_INSTALL_IMAGES = YES
define ARINT_INSTALL_IMAGES_CMDS
	$(INSTALL) -D -m 0755 $(ARINT_BINARIES)/arint $(BINARIES_DIR)/arint-program
	$(INSTALL) -D -m 0755 $(ARINT_BINARIES)/arinit $(BINARIES_DIR)/arinit
endef

$(eval $(generic-package))
