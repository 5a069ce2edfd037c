/*
 * tc.h - the link made by the kernel: a veth pair, and a netem queue at each end
 *
 * Packets do not pass through this process, so there is no log, no statistics, no seed, and nothing changes while it
 * runs.
 */
#ifndef TESTS_NETEM_TC_H
#define TESTS_NETEM_TC_H

#include "tests/netem/settings.h"
#include "tests/netem/space.h"

/** tc_have - whether this kernel has netem, and the machine the programs ip and tc; @ns: a namespace to try it in */
bool tc_have(int ns);

/**
 * tc_build - index 0 is the source's end; settings[0] is what happens on the way to the destination
 * @ns: this process is in ns[1]
 */
int tc_build(const int ns[static 2], const struct space_address addresses[static 2], unsigned int mtu,
             const struct settings settings[static 2], struct err *err);

#endif
