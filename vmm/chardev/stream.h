/*
 * What back ends over file descriptors share: reading when the front end has room, writing without
 * blocking, a rest that waits.
 *
 *	struct pty { struct chardev chr; struct chardev_stream stream; };
 *	chardev_stream_init(&p->stream, &p->chr, in, out);	in and out may be the same, either may be -1
 *	stream->ended = ...					what to do at end of file
 */
#ifndef VMM_CHARDEV_STREAM_H
#define VMM_CHARDEV_STREAM_H

#include "vmm/chardev.h"
#include "vmm/mainloop.h"

struct chardev_stream {
	struct chardev *chr;
	struct loop_fd in, out; /* one descriptor for both: out's events are in's */
	bool same;
	bool waiting; /* a writer wants to be told */
	bool parked; /* the other side hung up with bytes left to read, for which there was no room */
	bool tty;    /* a terminal: left in blocking mode, and asked before it is written to */
	int in_fd, out_fd;
	int in_flags, out_flags; /* of the descriptors, to put back; -1: untouched */
	void (*ended)(struct chardev_stream *s);
};

/**
 * Starts watching. The descriptors stay the caller's. They are made non-blocking, except a
 * terminal's, which others share.
 */
int chardev_stream_init(struct chardev_stream *s, struct chardev *chr, int in, int out,
			struct error *err);
/** Stops watching; not started: nothing happens. */
void chardev_stream_stop(struct chardev_stream *s);
size_t chardev_stream_write(struct chardev_stream *s, const u8 *bytes, size_t count);
/** Looks again whether the front end has room. */
void chardev_stream_accept(struct chardev_stream *s);

#endif
