/* Where host_trace() writes to. */
#ifndef HOSTS_USER_LOG_H
#define HOSTS_USER_LOG_H

/** Writes @path anew from now on; "-" is standard error, where it goes before the first call. 0 or -errno. Any thread. */
int host_trace_open(const char *path);

#endif
