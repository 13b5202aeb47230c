/* Back ends over plain descriptors: stdio, null, file, pipe, pty. */
#include "vmm/chardev/stream.h"
#include "vmm/chardev/terminal.h"
#include "vmm/machine.h"
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- null: takes everything, gives nothing --- */

static int null_open(struct chardev *chr, struct opts *o, struct error *err)
{
	chr->opened = true;
	return 0;
}

static void null_close(struct chardev *chr)
{
}

static size_t null_write(struct chardev *chr, const u8 *bytes, size_t count)
{
	return count;
}

static const struct chardev_class null_class = {
	.name = "null",
	.help = "nothing",
	.size = sizeof(struct chardev),
	.open = null_open,
	.close = null_close,
	.write = null_write,
};
CHARDEV_REGISTER(null_class)

/* --- everything else here is one or two descriptors --- */

struct fd_chardev {
	struct chardev chr;
	struct chardev_stream stream;
	int in, out;
	bool keep; /* the descriptors are not ours to close */
	bool terminal;
	int pty_slave; /* open, so that the master does not hang up when a user leaves */
};

static struct fd_chardev *to_fd(struct chardev *chr)
{
	return container_of(chr, struct fd_chardev, chr);
}

static void fd_close(struct chardev *chr)
{
	struct fd_chardev *f = to_fd(chr);

	chardev_stream_stop(&f->stream);
	if (f->terminal)
		terminal_restore();
	if (!f->keep && f->in >= 0)
		close(f->in);
	if (!f->keep && f->out >= 0 && f->out != f->in)
		close(f->out);
	if (f->pty_slave > 0)
		close(f->pty_slave);
}

static size_t fd_write(struct chardev *chr, const u8 *bytes, size_t count)
{
	return chardev_stream_write(&to_fd(chr)->stream, bytes, count);
}

static void fd_accept_input(struct chardev *chr)
{
	chardev_stream_accept(&to_fd(chr)->stream);
}

static int fd_start(struct fd_chardev *f, struct error *err)
{
	int r = chardev_stream_init(&f->stream, &f->chr, f->in, f->out, err);

	if (r < 0) {
		fd_close(&f->chr);
		return r;
	}
	f->chr.opened = true;
	return 0;
}

static int stdio_open(struct chardev *chr, struct opts *o, struct error *err)
{
	struct fd_chardev *f = to_fd(chr);
	struct list *pos;
	bool signals = true;

	if (opts_bool(o, "signal", &signals, err) < 0)
		return -EINVAL;
	list_for_each (pos, &chr->machine->chardevs)
		if (list_entry(pos, struct chardev, link)->class == chr->class)
			return error_set(err, -EBUSY,
					 "standard input and output are in use already");
	f->in = STDIN_FILENO;
	f->out = STDOUT_FILENO;
	f->keep = true;
	/* Closed by whoever started us: then there is nothing to read or to write. */
	if (fcntl(f->in, F_GETFD) < 0)
		f->in = -1;
	if (fcntl(f->out, F_GETFD) < 0)
		f->out = -1;
	if (fd_start(f, err) < 0)
		return -EINVAL;
	f->terminal = true;
	terminal_raw(signals);
	return 0;
}

static const struct chardev_class stdio_class = {
	.name = "stdio",
	.help = "this terminal; signal=on|off: whether Ctrl-C ends the monitor",
	.size = sizeof(struct fd_chardev),
	.open = stdio_open,
	.close = fd_close,
	.write = fd_write,
	.accept_input = fd_accept_input,
};
CHARDEV_REGISTER(stdio_class)

static int file_open(struct chardev *chr, struct opts *o, struct error *err)
{
	struct fd_chardev *f = to_fd(chr);
	const char *path = opts_get(o, "path");
	bool append = false;

	if (!path)
		return error_set(err, -EINVAL, "file: path= is wanted");
	if (opts_bool(o, "append", &append, err) < 0)
		return -EINVAL;
	f->in = -1;
	f->out = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0666);
	if (f->out < 0)
		return error_set(err, -errno, "%s: %s", path, strerror(errno));
	return fd_start(f, err);
}

static const struct chardev_class file_class = {
	.name = "file",
	.help = "path=PATH, append=on|off: output only",
	.size = sizeof(struct fd_chardev),
	.open = file_open,
	.close = fd_close,
	.write = fd_write,
};
CHARDEV_REGISTER(file_class)

/* PATH.in and PATH.out if there are such, else PATH for both. */
static int pipe_open(struct chardev *chr, struct opts *o, struct error *err)
{
	struct fd_chardev *f = to_fd(chr);
	const char *path = opts_get(o, "path");
	char *name;

	if (!path)
		return error_set(err, -EINVAL, "pipe: path= is wanted");
	name = xasprintf("%s.in", path);
	/*
	 * For reading and writing: the open does not wait for the other side, and there is no end
	 * of file when it leaves.
	 */
	f->in = open(name, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	free(name);
	name = xasprintf("%s.out", path);
	f->out = open(name, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	free(name);
	if (f->in < 0 || f->out < 0) {
		if (f->in >= 0)
			close(f->in);
		if (f->out >= 0)
			close(f->out);
		f->in = f->out = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		if (f->in < 0)
			return error_set(err, -errno, "%s: %s", path, strerror(errno));
	}
	return fd_start(f, err);
}

static const struct chardev_class pipe_class = {
	.name = "pipe",
	.help = "path=PATH: the named pipes PATH.in and PATH.out, or PATH",
	.size = sizeof(struct fd_chardev),
	.open = pipe_open,
	.close = fd_close,
	.write = fd_write,
	.accept_input = fd_accept_input,
};
CHARDEV_REGISTER(pipe_class)

static int pty_open(struct chardev *chr, struct opts *o, struct error *err)
{
	struct fd_chardev *f = to_fd(chr);
	struct termios mode;
	char name[128];
	int master;

	if (openpty(&master, &f->pty_slave, NULL, NULL, NULL) < 0)
		return error_set(err, -errno, "a pseudo-terminal: %s", strerror(errno));
	fcntl(master, F_SETFD, FD_CLOEXEC);
	fcntl(f->pty_slave, F_SETFD, FD_CLOEXEC);
	tcgetattr(f->pty_slave, &mode);
	cfmakeraw(&mode);
	tcsetattr(f->pty_slave, TCSANOW, &mode);
	if (ttyname_r(f->pty_slave, name, sizeof(name)))
		name[0] = 0;
	f->in = f->out = master;
	fcntl(master, F_SETFL, fcntl(master, F_GETFL) | O_NONBLOCK);
	if (fd_start(f, err) < 0)
		return -EINVAL;
	report("chardev %s is on %s", chr->id, name);
	return 0;
}

static const struct chardev_class pty_class = {
	.name = "pty",
	.help = "a new pseudo-terminal; its name is printed",
	.size = sizeof(struct fd_chardev),
	.open = pty_open,
	.close = fd_close,
	.write = fd_write,
	.accept_input = fd_accept_input,
};
CHARDEV_REGISTER(pty_class)
