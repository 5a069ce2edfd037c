/*
 * parse.h - numbers, sizes, switches and UUIDs from text that a person or a tool typed
 *
 * Pure functions. The whole text must be the value: nothing may stand before or after it, no sign, no white space. An
 * empty text is -EINVAL. Nothing is written to the output unless 0 is returned.
 */
#ifndef BASE_PARSE_H
#define BASE_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/** parse_u64 - decimal, or hexadecimal with the prefix 0x. Return: 0, -EINVAL not a number, -ERANGE beyond 64 bits. */
int parse_u64(const char *text, uint64_t *ret_value);

/**
 * parse_size - a number of bytes, as parse_u64 with an optional suffix k, M, G, T, P or E (powers of 1024) or B (bytes)
 * The suffix may be of either case. After 0x a final B or E is a digit, not a suffix. No fractions.
 * Return: as parse_u64.
 */
int parse_size(const char *text, uint64_t *ret_bytes);

/** parse_on_off - on, yes, true, y or off, no, false, n, in lower case. Return: 0 or -EINVAL. */
int parse_on_off(const char *text, bool *ret_on);

/** parse_name - one of so many. Return: its index, or -EINVAL. */
int parse_name(const char *text, const char *const *names, unsigned count);

/** parse_uuid - 8-4-4-4-12 hexadecimal digits, either case, in the order of writing. Return: 0 or -EINVAL. */
int parse_uuid(const char *text, uint8_t ret_uuid[static 16]);

#endif
