/* Cancelled, or freed, in the middle of several channels: everything is released. */
#include "tests/support/check_main.h"

#include <errno.h>

#include "tests/support/multifd_eras.h"
#include "tests/support/several.h"

/* Return: whether the migration was over before. */
static bool cancelled_at(unsigned dispatches, const struct multifd_opts *m, size_t chunk_bytes)
{
	struct several s;
	bool over;

	several_begin(&s, m, NULL);
	s.cancel_at = dispatches;
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		s.lines[i].chunk_bytes = chunk_bytes;
	several_finish(&s);
	over = s.result == 0 && s.dispatches <= dispatches;
	if (s.result != 0)
		several_check_failed(&s, -ECANCELED, NULL);
	else
		several_check_landed(&s);
	several_end(&s);
	return over;
}

TEST_CASE("cancel", 120);

TEST_EACH(test_cancel_after_any_dispatch_gives_everything_back, 3)
{
	struct multifd_opts m = { .channels = 3, .rounds = 2, .return_path = true, .method = multifd_methods[_i] };
	unsigned k = 0;

	while (!cancelled_at(k, &m, 400 + 600 * !_i))
		k++;
	ck_assert_uint_gt(k, 20);
}

TEST(test_cancel_while_a_worker_receives_a_packet_gives_everything_back)
{
	struct multifd_opts m = { .channels = 2, .blocks = multifd_big_blocks, .block_count = MULTIFD_BIG_BLOCKS };
	struct several s;

	several_begin(&s, &m, NULL);
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		several_allow(&s, i, i ? wire_find(several_wire(&s, i), "interval", 0) + 100000 : SEVERAL_ALL);
	several_settle(&s);
	inm_cancel(s.scene.e.inm);
	several_run(&s, 3000);
	several_check_failed(&s, -ECANCELED, NULL);
	several_end(&s);
}

TEST(test_free_in_the_middle_gives_everything_back)
{
	struct multifd_opts m = { .channels = 3, .rounds = 2, .method = multifd_methods[1] };

	for (unsigned k = 0; k < 40; k++) {
		struct several s;

		several_begin(&s, &m, NULL);
		several_connect_all(&s);
		for (unsigned i = 0; i < s.line_count; i++) {
			several_allow(&s, i, SEVERAL_ALL);
			s.lines[i].chunk_bytes = 4000;
		}
		for (unsigned i = 0; i < k; i++)
			several_turn(&s);
		several_end(&s);
	}
}
