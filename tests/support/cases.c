/* The cases and tests of a program, from the macros of check_main.h. */
#include "tests/support/cases.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct test_entry *entries;

/* By line: the constructors of a file run in any order. */
void test_enter(struct test_entry *entry)
{
	struct test_entry **at = &entries;

	while (*at && (*at)->line < entry->line)
		at = &(*at)->next;
	entry->next = *at;
	*at = entry;
}

/* The case of that name; made, if it is not there. */
static TCase *case_of(Suite *s, struct test_entry *entry)
{
	for (const struct test_entry *e = entries; e != entry; e = e->next)
		if (!e->add && strcmp(e->name, entry->name) == 0)
			return entry->tcase = e->tcase;
	entry->tcase = tcase_create(entry->name);
	tcase_set_timeout(entry->tcase, entry->seconds);
	if (entry->checked.setup)
		tcase_add_checked_fixture(entry->tcase, entry->checked.setup, entry->checked.teardown);
	if (entry->unchecked.setup)
		tcase_add_unchecked_fixture(entry->tcase, entry->unchecked.setup, entry->unchecked.teardown);
	suite_add_tcase(s, entry->tcase);
	return entry->tcase;
}

Suite *cases_suite(void)
{
	Suite *s = suite_create(program_invocation_short_name);
	TCase *t = NULL;

	if (!entries || entries->add) {
		fprintf(stderr, "a program begins with a TEST_CASE: see check_main.h\n");
		exit(2);
	}
	for (struct test_entry *e = entries; e; e = e->next)
		if (e->add)
			e->add(t);
		else
			t = case_of(s, e);
	return s;
}
