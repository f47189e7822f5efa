/* What this machine is called. What the process may take of its memory: base/process.h. */
#ifndef HONE_BASE_MACHINE_H
#define HONE_BASE_MACHINE_H

struct machine {
    char system[128]; /* "Linux 6.1.0 x86_64" */
    char cpu[128];    /* "AMD EPYC 7763"; "" where the system does not tell */
    int cores;        /* of the machine; thread_cores() tells how many this process may use */
};
void machine_describe(struct machine *out);

#endif
