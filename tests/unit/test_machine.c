/* inm_probe tells what a migration then gets, and its structure may have any size. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "inmigrate.h"
#include "tests/support/embedder.h"

static int count_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 200; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static const struct inm_finding *find(const struct inm_probe *p, const char *name)
{
	for (uint32_t i = 0; i < p->finding_count; i++) {
		if (strcmp(p->findings[i].name, name) == 0)
			return &p->findings[i];
	}
	return NULL;
}

TEST_CASE("probe", 20);

TEST(test_probe_explains_each_no_and_leaves_nothing)
{
	struct inm_probe p = { .size = sizeof(p) };
	struct utsname un;
	int before = count_descriptors();

	ck_assert_int_eq(inm_probe(&p), 0);
	ck_assert_int_eq(count_descriptors(), before);
	ck_assert_uint_eq(p.size, sizeof(p));
	uname(&un);
	ck_assert_str_eq(p.kernel, un.release);
	ck_assert_uint_ge(p.finding_count, 4);
	ck_assert_uint_le(p.finding_count, INM_FINDINGS_MAX);
	for (uint32_t i = 0; i < p.finding_count; i++) {
		ck_assert_int_eq(p.findings[i].there, p.findings[i].why_not[0] == '\0');
		ck_assert_ptr_eq(find(&p, p.findings[i].name), &p.findings[i]); /* no name twice */
		embedder_check_line(p.findings[i].why_not);
	}
	ck_assert_int_eq(p.door[0] == '\0', p.error[0] != '\0');
	ck_assert_int_eq(p.migration, find(&p, "io_uring")->there);
	ck_assert_int_eq(p.postcopy, p.migration && p.door[0]);
	ck_assert_int_eq(p.postcopy, strncmp(p.verdict, "will use ", 9) == 0);
	if (p.postcopy)
		ck_assert_int_eq(p.kernel_faults, find(&p, "kernel-faults")->there);
}

/* Of a program that was compiled against another version of the header. */
TEST(test_probe_writes_what_the_callers_structure_holds)
{
	struct inm_probe whole = { .size = sizeof(whole) };
	struct {
		struct inm_probe p;
		uint8_t more[64];
	} *longer = malloc(sizeof(*longer));

	ck_assert_int_eq(inm_probe(NULL), -EINVAL);
	ck_assert_int_eq(inm_probe(&(struct inm_probe){ .size = 0 }), -EINVAL);
	ck_assert_int_eq(inm_probe(&(struct inm_probe){ .size = sizeof(size_t) - 1 }), -EINVAL);
	ck_assert_int_eq(inm_probe(&whole), 0);
	for (size_t size = sizeof(size_t); size <= offsetof(struct inm_probe, findings); size += 61) {
		struct inm_probe p;

		memset(&p, 0x5a, sizeof(p));
		p.size = size;
		ck_assert_int_eq(inm_probe(&p), 0);
		ck_assert_uint_eq(p.size, size);
		ck_assert_mem_eq((char *)&p + sizeof(size_t), (char *)&whole + sizeof(size_t), size - sizeof(size_t));
		for (size_t i = size; i < sizeof(p); i++)
			ck_assert_int_eq(((uint8_t *)&p)[i], 0x5a);
	}
	memset(longer, 0x5a, sizeof(*longer));
	longer->p.size = sizeof(*longer);
	ck_assert_int_eq(inm_probe(&longer->p), 0);
	for (size_t i = 0; i < sizeof(longer->more); i++)
		ck_assert_int_eq(longer->more[i], 0);
	free(longer);
}

TEST_EACH(test_probe_says_what_inm_new_and_inm_listen_then_do, 2)
{
	struct inm_ops ops = { .size = sizeof(ops), .ram_block = embedder_ops.ram_block };
	struct inm_probe p = { .size = sizeof(p) };
	struct inm *inm = NULL;
	int r;

	if (_i > 0 && geteuid() != 0)
		test_skip("only root can become somebody else");
	if (_i > 0 && seteuid(65534) < 0)
		test_skip("root without the rights to lose privileges");
	ck_assert_int_eq(inm_probe(&p), 0);
	r = inm_new(&inm, NULL, &ops, NULL);
	ck_assert_int_eq(p.migration, r == 0);
	if (r < 0)
		return;
	ck_assert_int_eq(inm_set_capability(inm, "postcopy-ram", true), 0);
	ck_assert_int_eq(p.kernel_faults, inm_listen(inm, "tcp:127.0.0.1:0") == 0);
	inm_free(inm);
	ck_assert_int_eq(inm_new(&inm, NULL, &ops, NULL), 0);
	ck_assert_int_eq(inm_set_capability(inm, "postcopy-ram", true), 0);
	ck_assert_int_eq(inm_set_parameter(inm, "postcopy-kernel-faults", "off"), 0);
	ck_assert_int_eq(p.postcopy, inm_listen(inm, "tcp:127.0.0.1:0") == 0);
	inm_free(inm);
	if (_i > 0)
		ck_assert_int_eq(seteuid(0), 0);
}

/* Without descriptors nothing is available, and it says so. */
TEST(test_probe_where_nothing_can_be_opened_is_an_answer_too)
{
	struct inm_probe p = { .size = sizeof(p) };
	struct rlimit before, none;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){ 0, before.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	ck_assert_int_eq(inm_probe(&p), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert(!p.migration && !p.postcopy && !p.kernel_faults && !p.shared_memory && !p.callbacks_park);
	ck_assert_ptr_nonnull(strstr(p.error, "a limit of the process"));
	ck_assert_ptr_nonnull(strstr(p.verdict, "not possible: "));
	ck_assert(!find(&p, "io_uring")->there);
}
