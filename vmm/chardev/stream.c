/*
 * Descriptors as character devices: level-triggered reading while there is room, writing without
 * blocking.
 */
#include "vmm/chardev/stream.h"
#include "vmm/machine.h"
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

static struct loop *loop_of(struct chardev_stream *s)
{
	return &s->chr->machine->loop;
}

static void update(struct chardev_stream *s)
{
	u32 in = chardev_room(s->chr) ? EPOLLIN : 0, out = s->waiting ? EPOLLOUT : 0;

	if (s->in.added)
		loop_fd_events(loop_of(s), &s->in, in | (s->same ? out : 0));
	if (s->out.added)
		loop_fd_events(loop_of(s), &s->out, out);
}

static void end(struct chardev_stream *s)
{
	if (s->in.added)
		loop_fd_del(loop_of(s), &s->in);
	if (s->ended)
		s->ended(s);
}

static void in_ready(struct loop_fd *f, u32 events)
{
	struct chardev_stream *s = container_of(f, struct chardev_stream, in);
	u8 buffer[4096];
	size_t room;
	ssize_t n;

	if (events & EPOLLOUT && s->waiting) {
		s->waiting = false;
		chardev_can_write(s->chr);
		if (!s->in.added)
			return;
	}
	room = chardev_room(s->chr);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && room) {
		n = read(f->fd, buffer, MIN(room, sizeof(buffer)));
		if (n > 0)
			chardev_input(s->chr, buffer, n);
		else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			end(s);
			return;
		}
	} else if (events & (EPOLLHUP | EPOLLERR) && !(f->events & EPOLLIN)) {
		/*
		 * The other side has gone while nobody reads: what it sent last cannot be waited
		 * for in a busy loop.
		 */
		struct pollfd p = { .fd = f->fd, .events = POLLIN };

		if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLIN)) {
			end(s);
			return;
		}
		loop_fd_del(loop_of(s), f);
		s->parked = true;
	}
	update(s);
}

static void out_ready(struct loop_fd *f, u32 events)
{
	struct chardev_stream *s = container_of(f, struct chardev_stream, out);

	if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLOUT)) {
		/* Nobody will read it: written bytes are dropped from now on. */
		loop_fd_del(loop_of(s), f);
		s->out.fd = -1;
	}
	s->waiting = false;
	update(s);
	chardev_can_write(s->chr);
}

int chardev_stream_init(struct chardev_stream *s, struct chardev *chr, int in, int out,
			struct error *err)
{
	int r = 0;

	*s = (struct chardev_stream){
		.chr = chr, .same = in == out, .in_fd = in, .out_fd = out, .ended = s->ended
	};
	s->in = (struct loop_fd){ .fd = in, .ready = in_ready };
	s->out = (struct loop_fd){ .fd = out, .ready = out_ready };
	s->tty = out >= 0 && isatty(out);
	s->in_flags = in >= 0 && !isatty(in) ? fcntl(in, F_GETFL) : -1;
	s->out_flags = out >= 0 && !s->tty && in != out ? fcntl(out, F_GETFL) : -1;
	if (s->in_flags >= 0)
		fcntl(in, F_SETFL, s->in_flags | O_NONBLOCK);
	if (s->out_flags >= 0)
		fcntl(out, F_SETFL, s->out_flags | O_NONBLOCK);
	if (in >= 0)
		r = loop_fd_add(loop_of(s), &s->in);
	if (!r && out >= 0 && !s->same) {
		r = loop_fd_add(loop_of(s), &s->out);
		/*
		 * The same open file twice, as standard input and output often are: the one entry
		 * serves both.
		 */
		if (r == -EEXIST) {
			r = 0;
			s->same = true;
		}
	}
	if (r < 0) {
		chardev_stream_stop(s);
		return error_set(err, r, "%s: %s", chr->class->name, strerror(-r));
	}
	update(s);
	return 0;
}

void chardev_stream_stop(struct chardev_stream *s)
{
	if (!s->chr)
		return;
	loop_fd_del(loop_of(s), &s->in);
	loop_fd_del(loop_of(s), &s->out);
	/* The open files may be the shell's too, and it expects them to block. */
	if (s->in_flags >= 0)
		fcntl(s->in_fd, F_SETFL, s->in_flags);
	if (s->out_flags >= 0)
		fcntl(s->out_fd, F_SETFL, s->out_flags);
	*s = (struct chardev_stream){ .in.fd = -1, .out.fd = -1 };
}

/* A terminal is not made non-blocking (its flags are shared with the shell), but asked first. */
static bool would_block(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) == 0;
}

size_t chardev_stream_write(struct chardev_stream *s, const u8 *bytes, size_t count)
{
	size_t done = 0;
	ssize_t n;

	while (done < count && s->out.fd >= 0) {
		if (s->tty && would_block(s->out.fd))
			n = -1, errno = EAGAIN;
		else
			n = write(s->out.fd, bytes + done, count - done);
		if (n > 0) {
			done += n;
		} else if (n < 0 && errno == EINTR) {
			continue;
		} else if (n < 0 && errno == EAGAIN) {
			s->waiting = true;
			update(s);
			return done;
		} else {
			break; /* a full disk, a closed pipe: the bytes are lost, the guest goes on */
		}
	}
	return count;
}

void chardev_stream_accept(struct chardev_stream *s)
{
	if (!s->chr)
		return;
	if (s->parked && chardev_room(s->chr)) {
		s->parked = false;
		s->in.events = EPOLLIN;
		loop_fd_add(loop_of(s), &s->in);
	}
	update(s);
}
