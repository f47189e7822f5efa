/* Numbers in files, settings and events have a point, whatever locale the program around the library has set:
 * for the time of a call, its thread is in the "C" locale. The threads of a pool only compute. */
#ifndef HONE_BASE_LOCALE_H
#define HONE_BASE_LOCALE_H

#include <stdbool.h>

struct locale {
    void *plain, *callers; /* as the system has them */
};

/* Puts the calling thread into "C". False: out of memory; to leave is then nothing. */
bool locale_enter(struct locale *out);
/* Gives it back what it had. */
void locale_leave(struct locale *locale);
/* The same for the time of a function of the caller's: to it and back. */
void locale_to_caller(const struct locale *locale);
void locale_from_caller(struct locale *locale);

#endif
