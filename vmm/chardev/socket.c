/*
 * The socket back end: Unix or TCP, connecting or listening. A server takes one client at a time;
 * when that leaves, the next. Output while nobody is connected is lost, as it is on a line that is
 * not plugged in.
 */
#include "vmm/chardev/stream.h"
#include "vmm/machine.h"
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct socket_chardev {
	struct chardev chr;
	struct chardev_stream stream;
	struct loop_fd listener;
	char *path; /* of a listening Unix socket, to be removed */
	int fd;	    /* the connection, or -1 */
};

static struct socket_chardev *to_socket(struct chardev *chr)
{
	return container_of(chr, struct socket_chardev, chr);
}

static struct loop *loop_of(struct socket_chardev *s)
{
	return &s->chr.machine->loop;
}

static void disconnect(struct socket_chardev *s)
{
	if (s->fd < 0)
		return;
	chardev_stream_stop(&s->stream);
	close(s->fd);
	s->fd = -1;
	chardev_send_event(&s->chr, CHARDEV_CLOSED);
	if (s->listener.fd >= 0)
		loop_fd_events(loop_of(s), &s->listener, EPOLLIN);
}

static void stream_ended(struct chardev_stream *stream)
{
	disconnect(container_of(stream, struct socket_chardev, stream));
}

static int connected(struct socket_chardev *s, int fd, struct error *err)
{
	int one = 1, r;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one,
		   sizeof(one)); /* fails on a Unix socket, which needs none */
	s->fd = fd;
	s->stream.ended = stream_ended;
	r = chardev_stream_init(&s->stream, &s->chr, fd, fd, err);
	if (r < 0) {
		close(fd);
		s->fd = -1;
		return r;
	}
	chardev_send_event(&s->chr, CHARDEV_OPENED);
	return 0;
}

static void accept_client(struct loop_fd *f, u32 events)
{
	struct socket_chardev *s = container_of(f, struct socket_chardev, listener);
	int fd = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (!connected(s, fd, NULL))
		loop_fd_events(loop_of(s), f, 0); /* the next one waits */
}

static int unix_socket(struct socket_chardev *s, const char *path, bool server, struct error *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(path) >= sizeof(a.sun_path))
		return error_set(err, -ENAMETOOLONG, "path=%s: longer than %zu characters", path,
				 sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(err, -errno, "a socket: %s", strerror(errno));
	if (server)
		unlink(path);
	if (server ? bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 1)
		   : connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		r = -errno;
		close(fd);
		return error_set(err, r, "path=%s: %s", path, strerror(-r));
	}
	if (server)
		s->path = xstrdup(path);
	return fd;
}

static int tcp_socket(const char *host, const char *port, bool server, struct error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = server ? AI_PASSIVE : 0 },
			*list, *a;
	int fd = -1, r, one = 1;

	r = getaddrinfo(host && *host ? host : NULL, port, &hints, &list);
	if (r)
		return error_set(err, -EINVAL, "host=%s,port=%s: %s", host ? host : "", port,
				 gai_strerror(r));
	r = -EADDRNOTAVAIL;
	for (a = list; a; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (!(server ? bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 1)
			     : connect(fd, a->ai_addr, a->ai_addrlen)))
			break;
		r = -errno;
		close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	return fd >= 0 ? fd
		       : error_set(err, r, "host=%s,port=%s: %s", host ? host : "", port,
				   strerror(-r));
}

static void socket_close(struct chardev *chr)
{
	struct socket_chardev *s = to_socket(chr);

	chr->front = NULL;
	if (s->listener.fd >= 0) {
		loop_fd_del(loop_of(s), &s->listener);
		close(s->listener.fd);
		s->listener.fd = -1;
	}
	disconnect(s);
	if (s->path)
		unlink(s->path);
	free(s->path);
}

/* Signals wait for the main loop, which does not run yet: look for one now and then. */
static int wait_for_client(struct socket_chardev *s, struct error *err)
{
	struct pollfd p = { .fd = s->listener.fd, .events = POLLIN };
	sigset_t pending;
	int fd;

	report("chardev %s waits for a connection", s->chr.id);
	while (poll(&p, 1, 200) <= 0) {
		sigpending(&pending);
		if (sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT) ||
		    sigismember(&pending, SIGHUP))
			return error_set(err, -EINTR, "interrupted while waiting for a connection");
	}
	fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return error_set(err, -errno, "socket: %s", strerror(errno));
	loop_fd_events(loop_of(s), &s->listener, 0);
	return connected(s, fd, err);
}

static int socket_open(struct chardev *chr, struct opts *o, struct error *err)
{
	struct socket_chardev *s = to_socket(chr);
	const char *path = opts_get(o, "path"), *host = opts_get(o, "host"),
		   *port = opts_get(o, "port");
	bool server = false, wait = true, ignored;
	int fd, r;

	if (opts_bool(o, "server", &server, err) < 0 || opts_bool(o, "wait", &wait, err) < 0 ||
	    opts_bool(o, "nodelay", &ignored, err) < 0)
		return -EINVAL;
	if (!path == !port)
		return error_set(err, -EINVAL,
				 "socket: either path=, or host= and port=, is wanted");
	s->fd = -1;
	s->listener.fd = -1;
	fd = path ? unix_socket(s, path, server, err) : tcp_socket(host, port, server, err);
	if (fd < 0)
		return fd;
	if (!server)
		return connected(s, fd, err);
	s->listener = (struct loop_fd){ .fd = fd, .events = EPOLLIN, .ready = accept_client };
	r = loop_fd_add(loop_of(s), &s->listener);
	if (r < 0) {
		close(fd);
		return error_set(err, r, "socket: %s", strerror(-r));
	}
	r = wait ? wait_for_client(s, err) : 0;
	if (r < 0)
		socket_close(chr);
	return r;
}

static size_t socket_write(struct chardev *chr, const u8 *bytes, size_t count)
{
	struct socket_chardev *s = to_socket(chr);
	size_t done = 0;
	ssize_t n;

	while (done < count && s->fd >= 0) {
		n = send(s->fd, bytes + done, count - done, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0) {
			done += n;
		} else if (n < 0 && errno == EAGAIN) {
			/* Nothing goes now; the stream tells when it does. */
			s->stream.waiting = true;
			chardev_stream_accept(&s->stream);
			return done;
		} else if (n < 0 && errno == EINTR) {
			continue;
		} else {
			break; /* gone; the main loop will notice */
		}
	}
	return count;
}

static void socket_accept_input(struct chardev *chr)
{
	if (to_socket(chr)->fd >= 0)
		chardev_stream_accept(&to_socket(chr)->stream);
}

static const struct chardev_class socket_class = {
	.name = "socket",
	.help = "path=PATH or host=HOST,port=PORT; server=on|off, wait=on|off (for the first "
		"client)",
	.size = sizeof(struct socket_chardev),
	.open = socket_open,
	.close = socket_close,
	.write = socket_write,
	.accept_input = socket_accept_input,
};
CHARDEV_REGISTER(socket_class)
