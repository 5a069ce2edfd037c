#include "tests/support/high_fd.h"

#include <fcntl.h>
#include <sys/resource.h>

#include "base/assert.h"

int high_number(int wanted)
{
	struct rlimit files;

	ASSERT(getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur > HIGH_ROOM);
	return files.rlim_cur - HIGH_ROOM < (rlim_t)wanted ? (int)files.rlim_cur - HIGH_ROOM : wanted;
}

int high_fd(int fd, int wanted)
{
	int got = fcntl(fd, F_DUPFD_CLOEXEC, high_number(wanted));

	ASSERT(got >= 0);
	return got;
}
