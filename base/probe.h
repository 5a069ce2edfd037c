/*
 * probe.h - USDT probes: inmigrate:<floor>__<event>, numbers only
 *
 * A probe is one nop until a tracer attaches. Every one is listed with a sentence in man/inmigrate-probes.7, and
 * `make tidy` compares the two lists.
 */
#ifndef BASE_PROBE_H
#define BASE_PROBE_H

#include "config.h"

#if HAVE_SDT
#include <sys/sdt.h>
#define PROBE0(name) DTRACE_PROBE(inmigrate, name)
#define PROBE1(name, a) DTRACE_PROBE1(inmigrate, name, a)
#define PROBE2(name, a, b) DTRACE_PROBE2(inmigrate, name, a, b)
#define PROBE3(name, a, b, c) DTRACE_PROBE3(inmigrate, name, a, b, c)
#define PROBE4(name, a, b, c, d) DTRACE_PROBE4(inmigrate, name, a, b, c, d)
#else
/* The arguments are evaluated for their types only, so that a build without probes finds the same mistakes. */
#define PROBE0(name) ((void)0)
#define PROBE1(name, a) ((void)sizeof(a))
#define PROBE2(name, a, b) ((void)sizeof(a), (void)sizeof(b))
#define PROBE3(name, a, b, c) ((void)sizeof(a), (void)sizeof(b), (void)sizeof(c))
#define PROBE4(name, a, b, c, d) ((void)sizeof(a), (void)sizeof(b), (void)sizeof(c), (void)sizeof(d))
#endif

#endif
