#include "programs/stress/kinds.h"

const char *const memory_names[MEMORY_COUNT] = { [MEMORY_ANON] = "anon",
	                                         [MEMORY_MEMFD] = "memfd",
	                                         [MEMORY_THP] = "thp",
	                                         [MEMORY_HUGE_2M] = "hugetlb-2m",
	                                         [MEMORY_HUGE_1G] = "hugetlb-1g" };
const char *const place_names[PLACE_COUNT] = {
	[PLACE_COPY] = "copy", [PLACE_CONTINUE] = "continue", [PLACE_MOVE] = "move", [PLACE_ZERO] = "zero"
};
const char *const stress_pattern_names[PATTERN_COUNT] = { [PATTERN_SEQ] = "seq",
	                                                  [PATTERN_STRIDE] = "stride",
	                                                  [PATTERN_RANDOM] = "random",
	                                                  [PATTERN_HOT] = "hot",
	                                                  [PATTERN_RACING] = "racing" };
const char *const event_names[EVENT_COUNT] = {
	[EVENT_REMOVE] = "remove", [EVENT_UNMAP] = "unmap", [EVENT_REMAP] = "remap", [EVENT_FORK] = "fork"
};
