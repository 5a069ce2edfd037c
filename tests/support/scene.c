#include "tests/support/scene.h"

#include <check.h>
#include <stdlib.h>

void scene_begin(struct scene *s, const struct honest_opts *opts)
{
	*s = (struct scene){ 0 };
	census_take(&s->before);
	embedder_init(&s->e);
	if (!opts)
		return;
	wire_honest(&s->wire, opts, &s->image);
	embedder_add_image(&s->e, &s->image);
}

int scene_land(struct scene *s, const struct land_opts *o)
{
	return land(&s->e, &s->wire, o, &s->report);
}

void scene_check_landed(struct scene *s)
{
	ck_assert_msg(s->e.result == 0, "%d: %s", s->e.result, s->e.error);
	ck_assert_uint_eq(embedder_compare(&s->e, &s->image), 0);
	ck_assert_uint_eq(embedder_compare_devices(&s->e, &s->wire), 0);
	ck_assert_uint_eq(s->e.start_calls, 1);
	ck_assert(!s->e.device_after_start);
}

void scene_end(struct scene *s)
{
	ck_assert_uint_eq(embedder_canaries(&s->e), 0);
	embedder_fini(&s->e);
	honest_image_fini(&s->image);
	wire_fini(&s->wire);
	ck_assert_msg(census_differs(&s->before) == 0, "something is left behind, see above");
	census_free(&s->before);
}

unsigned long scene_env(const char *name, unsigned long fallback)
{
	const char *text = getenv(name);

	return text && text[0] ? strtoul(text, NULL, 0) : fallback;
}
