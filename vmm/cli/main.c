/*
 * trine: the monitor's main program. Reads the command line, builds the machine, runs it, cleans
 * up.
 *
 *	trine -kernel vmlinuz -initrd initramfs -append console=ttyS0 -m 512M -smp 2
 */
#include "vmm/chardev/terminal.h"
#include "vmm/cli.h"
#include "vmm/machine.h"
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

static struct machine machine;
static struct loop_fd signals;

static void signal_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGTSTP);
	sigaddset(set, SIGCONT);
}

static void on_signal(struct loop_fd *f, u32 events)
{
	struct signalfd_siginfo info;

	while (read(f->fd, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGTSTP: terminal_suspend(); break;
		case SIGCONT: terminal_resume(); break;
		default:
			report("ended by signal %u from process %u", info.ssi_signo, info.ssi_pid);
			machine_quit(&machine, 0);
			break;
		}
	}
}

static int watch_signals(struct machine *m, struct error *err)
{
	sigset_t set;
	int r;

	signal_set(&set);
	signals = (struct loop_fd){ .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
				    .events = EPOLLIN,
				    .ready = on_signal };
	r = signals.fd < 0 ? -errno : loop_fd_add(&m->loop, &signals);
	return r < 0 ? error_set(err, r, "signalfd: %s", strerror(-r)) : 0;
}

static int write_pidfile(const char *path, struct error *err)
{
	char text[32];
	int fd, n;

	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	n = snprintf(text, sizeof(text), "%d\n", getpid());
	if (fd < 0 || write(fd, text, n) != n) {
		error_set(err, -errno, "-pidfile %s: %s", path, strerror(errno));
		if (fd >= 0) {
			close(fd);
			unlink(path);
		}
		return -EIO;
	}
	close(fd);
	return 0;
}

static int run(struct machine *m, int argc, char **argv, struct error *err)
{
	char *pidfile = NULL;
	int r;

	machine_lock(m);
	r = cli_parse(m, argc, argv, err);
	machine_unlock(m);
	if (r)
		return r;
	if (!m->config.kernel)
		return error_set(err, -EINVAL,
				 "there is nothing to boot: -kernel FILE is wanted; -help lists "
				 "all options");
	r = watch_signals(m, err);
	if (!r)
		r = machine_build(m, err);
	if (!r && m->config.pidfile) {
		r = write_pidfile(m->config.pidfile, err);
		pidfile = r ? NULL : m->config.pidfile;
	}
	if (r < 0)
		return r;
	machine_run(m);
	if (pidfile)
		unlink(pidfile);
	return 0;
}

int main(int argc, char **argv)
{
	struct machine *m = &machine;
	struct error err = { "" };
	sigset_t set;
	int r, status;

	/*
	 * libslirp grows each connection's buffers of 128 KiB at once. In maps of their own they grow where they are; in the heap,
	 * where glibc would have them after the first was freed, they would be copied, each page of them touched.
	 */
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	terminal_guard();
	signal_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	r = machine_init(m, &err);
	if (r < 0) {
		report("%s", err.text);
		return 1;
	}
	r = run(m, argc, argv, &err);
	status = r < 0 ? 1 : m->exit_status;
	machine_destroy(m);
	terminal_restore();
	/* After the terminal is as it was, so that the line stands alone. */
	if (r < 0)
		report("%s", err.text);
	if (fflush(stdout) == EOF && !status)
		status = 1;
	return status;
}
