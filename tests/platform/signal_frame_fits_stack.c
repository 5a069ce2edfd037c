/* A signal frame of this CPU (AT_MINSIGSTKSZ: with AVX-512 and AMX state it is 11 KiB and more) leaves most of a
 * default coroutine stack to the handler and to the interrupted callback. */
#include "coroutine/stack.h"

#include <signal.h>
#include <stdio.h>
#include <sys/auxv.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

int main(void)
{
	size_t frame = getauxval(AT_MINSIGSTKSZ);

	if (frame == 0) {
		printf("this kernel does not say AT_MINSIGSTKSZ\n");
		return 77;
	}
	printf("signal frame: %zu bytes; default stack: %u; SIGSTKSZ of old: 8192\n", frame, STACK_BYTES_DEFAULT);
	return frame * 4 <= STACK_BYTES_DEFAULT ? 0 : 1;
}
