# A thin front for Meson: `make help` says what there is. Everything that is made lands in build/.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := all
BUILD := build

help:
	@echo 'make             build Trine: $(BUILD)/trine, $(BUILD)/libtrine.so ...'
	@echo 'make run         install what is missing, build, boot a Debian kernel to a shell on the lite engine'
	@echo 'make check       every test that takes no hardware virtualization, about 25 minutes on two cores'
	@echo 'make check-long  the same with ten times the cases, and a minute of fuzzing a target'
	@echo 'make fuzz        run every fuzz target for FUZZ_SECONDS (60)'
	@echo 'make bench       one benchmark natively, on lite and in QEMU, side by side: about ten minutes'
	@echo 'make setup       install the Debian packages that are missing'
	@echo 'make modules     build the kernel modules: $(BUILD)/modules/trine.ko ... (KERNEL=DIR: for the kernel built there)'
	@echo 'make modules_install   install them, and the udev rule for /dev/kvm'
	@echo 'make clean       remove $(BUILD)'

all:
	@scripts/build $(BUILD)

setup:
	@scripts/setup

guest:
	@scripts/setup build libraries guest
	@scripts/fetch-kernel $(BUILD)/guest
	@scripts/mkinitramfs $(BUILD)/guest

run: guest
	@scripts/build --quiet $(BUILD)
	@scripts/run $(BUILD)

check:
	@scripts/setup
	@scripts/check --build $(BUILD)

check-long:
	@scripts/setup
	@scripts/check --build $(BUILD) --long

fuzz:
	@scripts/setup
	@scripts/fuzz --build $(BUILD)

bench:
	@scripts/setup build libraries guest bench
	@scripts/fetch-kernel $(BUILD)/guest
	@scripts/build --quiet $(BUILD)
	@bench/run --build $(BUILD)

modules:
	@scripts/modules $(if $(KERNEL),--kernel $(KERNEL)) $(BUILD)

modules_install:
	@scripts/modules $(if $(KERNEL),--kernel $(KERNEL)) $(BUILD) modules_install
	install -D -m 644 modules/65-trine.rules $(DESTDIR)/lib/udev/rules.d/65-trine.rules

clean:
	rm -rf $(BUILD)

.PHONY: help all setup guest run check check-long fuzz bench modules modules_install clean
