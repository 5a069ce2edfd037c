/*
 * Where the faults of KVM and vhost cannot be served, the library refuses postcopy before the source has stopped its
 * guest: when the embedder begins to listen, and again when the source says that postcopy may come. Parameter
 * postcopy-kernel-faults says that nobody will cause such faults.
 *
 * The test really drops the privilege, and gets it back for its end.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/inm.h"
#include "tests/support/postcopy_scene.h"

#define CANNOT "capability 'postcopy-ram': faults inside the kernel (KVM, vhost) cannot be served: /dev/userfaultfd: "

static void need_closed_doors(void)
{
	FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");
	int c = f ? getc(f) : '0';

	if (f)
		fclose(f);
	if (c == '1')
		test_skip("vm.unprivileged_userfaultfd is 1: everybody's userfaultfd serves all faults");
	if (geteuid() != 0)
		test_skip("only root can lose privileges");
}

static void become(uid_t user)
{
	/* The census looks into /proc/self, which is root's after a change of user. */
	if (seteuid(user) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
		test_skip("root without the rights to lose privileges");
}

/* The socket is root's, and so is its folder. */
static void begin(struct pc *s, const struct pc_opts *o)
{
	char path[100];

	pc_begin(s, o);
	snprintf(path, sizeof(path), "%s/socket", s->dir);
	ck_assert_int_eq(chmod(s->dir, 0777), 0);
	ck_assert_int_eq(chmod(path, 0777), 0);
}

static struct inm *made(const char *kernel_faults)
{
	struct inm_ops ops = { .size = sizeof(ops), .ram_block = embedder_ops.ram_block };
	struct inm *inm;

	ck_assert_int_eq(inm_new(&inm, NULL, &ops, NULL), 0);
	ck_assert_int_eq(inm_set_capability(inm, "postcopy-ram", true), 0);
	if (kernel_faults)
		ck_assert_int_eq(inm_set_parameter(inm, "postcopy-kernel-faults", kernel_faults), 0);
	return inm;
}

TEST_CASE("listening", 20);

TEST_EACH(test_listening_is_refused_by_default_and_the_error_says_what_to_permit, 2)
{
	static const char *const hints[] = { "CAP_SYS_PTRACE", "vm.unprivileged_userfaultfd=1",
		                             "postcopy-kernel-faults=off" };
	struct inm *inm;

	need_closed_doors();
	inm = made(_i ? "on" : NULL);
	become(65534);
	ck_assert_int_eq(inm_listen(inm, "tcp:127.0.0.1:0"), -EPERM);
	ck_assert_msg(strncmp(inm_error(inm), CANNOT, strlen(CANNOT)) == 0, "%s", inm_error(inm));
	for (size_t i = 0; i < 3; i++)
		ck_assert_msg(strstr(inm_error(inm), hints[i]), "no %s in: %s", hints[i], inm_error(inm));
	ck_assert_int_eq(inm_get_state(inm), INM_STATE_NONE);
	/* Once it is permitted, or need not be, the same one listens. */
	if (_i)
		become(0);
	else
		ck_assert_int_eq(inm_set_parameter(inm, "postcopy-kernel-faults", "off"), 0);
	ck_assert_int_eq(inm_listen(inm, "tcp:127.0.0.1:0"), 0);
	inm_free(inm);
	become(0);
}

TEST(test_without_postcopy_nothing_is_asked_for)
{
	struct inm *inm;

	need_closed_doors();
	inm = made(NULL);
	ck_assert_int_eq(inm_set_capability(inm, "postcopy-ram", false), 0);
	become(65534);
	ck_assert_int_eq(inm_listen(inm, "tcp:127.0.0.1:0"), 0);
	inm_free(inm);
	become(0);
}

TEST_CASE("privileges", 60);

/* A monitor that gives its privileges up once it listens. */
TEST(test_privileges_lost_before_the_source_came_refuse_it_in_time)
{
	struct pc s;

	need_closed_doors();
	begin(&s, &(struct pc_opts){ .kernel_faults = true });
	become(65534);
	pc_precopy(&s);
	become(0);
	pc_check_failed(&s, -EPERM, "faults inside the kernel (KVM, vhost) cannot be served");
	pc_end(&s);
}

/* What was there when the source was let in is kept for the switch. */
TEST(test_privileges_lost_after_the_source_came_are_not_needed)
{
	struct pc s;

	need_closed_doors();
	begin(&s, &(struct pc_opts){ .kernel_faults = true, .touch = { .threads = 1 } });
	pc_precopy(&s);
	become(65534);
	pc_finish(&s);
	become(0);
	pc_check_landed(&s);
	pc_end(&s);
}

TEST(test_faults_of_user_mode_are_enough_for_a_guest_that_has_no_others)
{
	struct pc s;

	need_closed_doors();
	begin(&s, &(struct pc_opts){ .touch = { .threads = 1 } });
	become(65534);
	pc_finish(&s);
	become(0);
	pc_check_landed(&s);
	pc_end(&s);
}
