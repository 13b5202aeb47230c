/*
 * Character devices: where the bytes of a serial port or a console go to and come from.
 *
 *	-chardev socket,id=s0,path=/tmp/s,server=on	a back end, by kind and id
 *	-device virtconsole,chardev=s0			a front end, which attaches to it by name
 *
 *	static void serial_receive(struct chardev_front *f, const u8 *bytes, size_t count) { ... }
 *
 *	s->front.can_receive = ...; s->front.receive = ...; s->front.event = ...;
 *	chardev_attach(m, s->chardev, &s->front, err);
 *	n = chardev_write(&s->front, bytes, count);	what is not taken: wait for front.writable
 *	chardev_poke(&s->front);			there is room again for input
 *
 * A front end that is not attached may be written to: the bytes are gone. All under the machine
 * lock.
 */
#ifndef VMM_CHARDEV_H
#define VMM_CHARDEV_H

#include "vmm/opts.h"
#include "vmm/util.h"

struct machine;
struct chardev;

enum chardev_event {
	CHARDEV_OPENED, /* the other side is there; also right after attach, if it is */
	CHARDEV_CLOSED,
	CHARDEV_BREAK,
	CHARDEV_FOCUS_IN, /* of several front ends on a mux this one has the keyboard now */
	CHARDEV_FOCUS_OUT,
};

struct chardev_front {
	/** Bytes that receive() can take now. */
	size_t (*can_receive)(struct chardev_front *f);
	void (*receive)(struct chardev_front *f, const u8 *bytes, size_t count);
	/** May be NULL. */
	void (*event)(struct chardev_front *f, enum chardev_event event);
	/**
	 * Output can go on, after a short chardev_write(). May be NULL: then the back end loses
	 * what does not fit.
	 */
	void (*writable)(struct chardev_front *f);
	struct chardev *chardev; /* NULL: not attached */
	struct list link;
};

/* A kind of back end. */
struct chardev_class {
	const char *name;
	const char *help; /* its options, for -chardev help */
	size_t size;
	/** Opens; the struct chardev is the beginning of the kind's own structure. */
	int (*open)(struct chardev *chr, struct opts *o, struct error *err);
	void (*close)(struct chardev *chr);
	/**
	 * Takes up to @count bytes without blocking; returns how many. After fewer it calls
	 * chardev_can_write() when there is room.
	 */
	size_t (*write)(struct chardev *chr, const u8 *bytes, size_t count);
	/** The front end has room for input (again). May be NULL. */
	void (*accept_input)(struct chardev *chr);
	/** A front end comes or goes; a kind that has these takes several at once. May be NULL. */
	int (*attach)(struct chardev *chr, struct chardev_front *front, struct error *err);
	void (*detach)(struct chardev *chr, struct chardev_front *front);
};

struct chardev {
	const struct chardev_class *class;
	struct machine *machine;
	char *id;
	struct chardev_front *front; /* NULL: none yet; of a mux, the one with the keyboard */
	bool opened;
	struct list link;
};

void chardev_register(const struct chardev_class *class);
#define CHARDEV_REGISTER(c)                                         \
	__attribute__((constructor)) static void register_##c(void) \
	{                                                           \
		chardev_register(&c);                               \
	}

/** Makes a back end out of "-chardev" text: "kind,id=NAME,...". */
struct chardev *chardev_add(struct machine *m, const char *text, struct error *err);
/** Makes a back end with options that are parsed already; "id" and "backend" are in @o. */
struct chardev *chardev_create(struct machine *m, struct opts *o, struct error *err);
/** Makes one out of what -serial and -monitor take: stdio, mon:stdio,
 * null, pty, file:PATH, pipe:PATH, unix:PATH,server=on, tcp:HOST:PORT, chardev:ID. */
struct chardev *chardev_add_short(struct machine *m, const char *text, const char *id,
				  struct error *err);
struct chardev *chardev_find(struct machine *m, const char *id);
void chardev_close_all(struct machine *m);
void chardev_help(void);

/** Connects. -ENOENT: no chardev @id; -EBUSY: it has a front end. Text set. */
int chardev_attach(struct machine *m, const char *id, struct chardev_front *front,
		   struct error *err);
void chardev_detach(struct chardev_front *front);

/**
 * Returns how many of @count bytes were taken; fewer only if the front has writable(). Not
 * attached: all.
 */
size_t chardev_write(struct chardev_front *front, const u8 *bytes, size_t count);
/** The front end can receive again. */
void chardev_poke(struct chardev_front *front);
/** Whether the other side is there. */
bool chardev_connected(const struct chardev_front *front);

/* For back ends: bytes and events on their way to the front end. */
size_t chardev_room(struct chardev *chr);
void chardev_input(struct chardev *chr, const u8 *bytes, size_t count);
void chardev_send_event(struct chardev *chr, enum chardev_event event);
void chardev_can_write(struct chardev *chr);

#endif
