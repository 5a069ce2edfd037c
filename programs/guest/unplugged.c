#include "programs/guest/unplugged.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct unplugged_name *find(const struct guest_unplugged *u, const char *name)
{
	for (size_t i = 0; i < u->count; i++) {
		if (strcmp(u->names[i].name, name) == 0)
			return &u->names[i];
	}
	return NULL;
}

int guest_unplugged_add(struct guest_unplugged *u, const char *name)
{
	struct unplugged_name *names;

	if (find(u, name))
		return 0;
	names = realloc(u->names, (u->count + 1) * sizeof(*names));
	if (!names)
		return -ENOMEM;
	u->names = names;
	names[u->count++] = (struct unplugged_name){ .name = name };
	return 0;
}

bool guest_unplugged_take(struct guest_unplugged *u, const char *name)
{
	struct unplugged_name *n = find(u, name);

	if (n)
		n->used = true;
	return n;
}

const char *guest_unplugged_unused(const struct guest_unplugged *u)
{
	for (size_t i = 0; i < u->count; i++) {
		if (!u->names[i].used)
			return u->names[i].name;
	}
	return NULL;
}

void guest_unplugged_fini(struct guest_unplugged *u)
{
	free(u->names);
	*u = (struct guest_unplugged){ 0 };
}
