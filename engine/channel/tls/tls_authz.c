/* Which distinguished names are accepted: tls_authz_match of tls_creds.h. Source: doc/wire/channels.md 8.4 */
#include "engine/channel/tls/tls_creds.h"

/* A character with the backslash before it is one: what follows a '*' must not begin in its middle. */
static size_t step_bytes(const char *text)
{
	return text[0] == '\\' && text[1] ? 2 : 1;
}

/* Bytes of @dn, from the front, that may belong to a '*': up to an unescaped border of a part of the name. */
static size_t value_bytes(const char *dn)
{
	size_t n = 0;

	while (dn[n] && dn[n] != ',' && dn[n] != '+')
		n += step_bytes(dn + n);
	return n;
}

/* The pattern has @bytes. Each '*' takes at most one value, so the work is bounded by the values' lengths in turn. */
static bool glob_match(const char *pattern, size_t bytes, const char *dn)
{
	const char *star = NULL;    /* after the last '*' */
	const char *retry = NULL;   /* where its run ends at present */
	const char *run_end = NULL; /* where it must end at the latest */
	const char *end = pattern + bytes;

	while (*dn || pattern < end) {
		if (pattern < end && *pattern == '*') {
			star = ++pattern;
			retry = dn;
			run_end = dn + value_bytes(dn);
		} else if (pattern < end && *dn && *pattern == *dn) {
			pattern++;
			dn++;
		} else if (star && retry < run_end) {
			pattern = star;
			retry += step_bytes(retry);
			dn = retry;
		} else {
			return false;
		}
	}
	return true;
}

bool tls_authz_match(const char *patterns, const char *dn)
{
	for (;;) {
		size_t n = 0;

		while (patterns[n] && patterns[n] != ';')
			n += step_bytes(patterns + n);
		if (n > 0 && glob_match(patterns, n, dn))
			return true;
		if (!patterns[n])
			return false;
		patterns += n + 1;
	}
}
