/* Stands before Linux's own header of this name, which its ABI headers name and do not need: a C library's copy of them omits it. */
