/*
 * The terminal on standard input: into raw mode and, whatever happens, back.
 *
 * Restored by terminal_restore(), at exit(), on fatal signals and while the process is stopped
 * (Ctrl-Z of a shell, SIGTSTP).
 */
#ifndef VMM_CHARDEV_TERMINAL_H
#define VMM_CHARDEV_TERMINAL_H

#include <stdbool.h>

/**
 * Raw mode, if standard input is a terminal. @signals: Ctrl-C, Ctrl-\ and Ctrl-Z keep their
 * meaning.
 */
void terminal_raw(bool signals);
void terminal_restore(void);

/** On SIGTSTP: restores, and stops the process; returns after it has been continued, raw again. */
void terminal_suspend(void);
/** On SIGCONT: the shell may have changed the mode meanwhile. */
void terminal_resume(void);

/** Installs the handlers for fatal signals; before anything else that handles them. */
void terminal_guard(void);

#endif
