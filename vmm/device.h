/*
 * Devices: a registry of kinds, each with a table of properties, and the devices that a machine
 * has.
 *
 *	struct beeper {
 *		struct pci_device pci;		begins with a struct device
 *		u32 pitch;
 *		bool loud;
 *		char *chardev;
 *	};
 *
 *	static const struct property beeper_properties[] = {
 *		PROPERTY_U32("pitch", struct beeper, pitch, "440", "frequency in Hz"),
 *		PROPERTY_BOOL("loud", struct beeper, loud, "off", "twice the volume"),
 *		PROPERTY_STRING("chardev", struct beeper, chardev, NULL, "where the sound goes"),
 *		{}
 *	};
 *	static const struct device_class beeper_class = {
 *		.name = "beeper", .description = "a PCI beeper", .bus = "PCI", .size = sizeof(struct beeper),
 *		.properties = beeper_properties, .realize = beeper_realize, .unrealize = ..., .reset = ...,
 *	};
 *	DEVICE_REGISTER(beeper_class)
 *
 * From then on `-device beeper,pitch=880` makes one, `-device help` lists it and `-device
 * beeper,help` its properties. Properties of the bus ("addr" on PCI) are added by the bus, "id" and
 * "bus" by the registry.
 */
#ifndef VMM_DEVICE_H
#define VMM_DEVICE_H

#include "vmm/util.h"
#include "vmm/opts.h"

struct machine;
struct device;

enum property_type {
	PROPERTY_TYPE_BOOL, /* bool */
	PROPERTY_TYPE_U8,
	PROPERTY_TYPE_U16,
	PROPERTY_TYPE_U32,
	PROPERTY_TYPE_U64,
	PROPERTY_TYPE_SIZE,	/* u64, suffixes understood */
	PROPERTY_TYPE_STRING,	/* char *, allocated; NULL if absent and without default */
	PROPERTY_TYPE_TRISTATE, /* int: -1 auto, 0 off, 1 on */
};

struct property {
	const char *name;
	enum property_type type;
	size_t offset;	       /* in the device's structure */
	const char *otherwise; /* the default, as text; NULL: 0 or absent */
	const char *help;
};

#define PROPERTY(n, t, s, f, d, h)                         \
	{                                                  \
		n, PROPERTY_TYPE_##t, offsetof(s, f), d, h \
	}
#define PROPERTY_BOOL(n, s, f, d, h)	 PROPERTY(n, BOOL, s, f, d, h)
#define PROPERTY_U8(n, s, f, d, h)	 PROPERTY(n, U8, s, f, d, h)
#define PROPERTY_U16(n, s, f, d, h)	 PROPERTY(n, U16, s, f, d, h)
#define PROPERTY_U32(n, s, f, d, h)	 PROPERTY(n, U32, s, f, d, h)
#define PROPERTY_U64(n, s, f, d, h)	 PROPERTY(n, U64, s, f, d, h)
#define PROPERTY_SIZE(n, s, f, d, h)	 PROPERTY(n, SIZE, s, f, d, h)
#define PROPERTY_STRING(n, s, f, d, h)	 PROPERTY(n, STRING, s, f, d, h)
#define PROPERTY_TRISTATE(n, s, f, d, h) PROPERTY(n, TRISTATE, s, f, d, h)

struct device_class {
	const char *name;
	const char *alias; /* another name for -device, or NULL */
	const char *description;
	const char *
		bus; /* the type of bus it sits on: "PCI", "ISA", "virtio-serial" ...; NULL: none */
	bool internal;			   /* made by the machine only, not by -device */
	size_t size;			   /* of the whole structure, zeroed when made */
	const struct property *properties; /* ends with an empty entry; NULL: none */
	const void *data; /* the kind's own, read-only (variants of one device share code) */
	/**
	 * Properties are set, the bus has given it a place. Everything it made is undone on
	 * failure. Machine lock held.
	 */
	int (*realize)(struct device *dev, struct error *err);
	/** Undoes realize. Machine lock held. May be NULL. */
	void (*unrealize)(struct device *dev);
	/**
	 * Back to the state after power-on, called at every reset of the machine and once before it
	 * starts. May be NULL.
	 */
	void (*reset)(struct device *dev);
};

/* A place where devices are plugged; made by the device that has it, or by the machine. */
struct device_bus {
	const char *type; /* "PCI" */
	char *name;	  /* "pcie.0" */
	struct machine *machine;
	struct device *owner; /* NULL: the machine */
	const struct property *
		properties; /* what the bus adds to each device; offsets in the device's structure */
	/** Before the class's realize: finds a place, checks it. May be NULL. */
	int (*attach)(struct device_bus *bus, struct device *dev, struct error *err);
	/** After the class's realize; failure unrealizes. May be NULL. */
	int (*attached)(struct device_bus *bus, struct device *dev, struct error *err);
	/** After the class's unrealize, or failed realize. May be NULL. */
	void (*detach)(struct device_bus *bus, struct device *dev);
	/** Before the class's reset. May be NULL. */
	void (*reset)(struct device_bus *bus, struct device *dev);
	struct list devices; /* struct device, by bus_link */
	struct list link;    /* in the machine's list of buses */
};

struct device {
	const struct device_class *class;
	struct machine *machine;
	struct device_bus *bus;
	char *id;	/* -device id=, or NULL */
	char *bus_name; /* -device bus=, or NULL */
	bool realized;
	struct list link; /* in the machine's devices, in order of creation */
	struct list bus_link;
};

/** Adds a kind; from a constructor, through the macro. */
void device_register(const struct device_class *class);
#define DEVICE_REGISTER(c)                                          \
	__attribute__((constructor)) static void register_##c(void) \
	{                                                           \
		device_register(&c);                                \
	}

const struct device_class *device_class_find(const char *name);

/**
 * Makes, plugs and realizes the device that "@text" describes ("name,property=value,..."), after
 * the machine is built. On failure nothing is left. Machine lock held. Returns it or NULL with @err
 * set.
 */
struct device *device_add(struct machine *m, const char *text, struct error *err);
/** The same for what the monitor makes itself: @class may be internal, @o may be NULL. */
struct device *device_create(struct machine *m, const struct device_class *class, struct opts *o,
			     struct error *err);

/**
 * Remembers "@text" until the machine is built: what -device, -drive if=virtio and -nic call while
 * options are read. A class that does not exist is refused at once.
 */
int device_queue(struct machine *m, const char *text, struct error *err);
/** Makes all that was queued, in order. */
int device_add_queued(struct machine *m, struct error *err);

/** Unplugs and frees. Machine lock held. */
void device_remove(struct device *dev);
void device_remove_all(struct machine *m);

struct device *device_find(struct machine *m, const char *id);
/** Resets all, in order of creation. */
void device_reset_all(struct machine *m);

/** Prints the list of kinds, or the properties of one (-ENOENT), on standard output. */
void device_help(void);
int device_class_help(struct machine *m, const char *name, struct error *err);

/** Adds @bus to the machine. type and name are set by the caller. */
void device_bus_add(struct machine *m, struct device *owner, struct device_bus *bus);
void device_bus_remove(struct device_bus *bus);
/** The bus of that @name, or with NULL the first of @type. */
struct device_bus *device_bus_find(struct machine *m, const char *type, const char *name);

#endif
