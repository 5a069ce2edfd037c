/*
 * text.h - bytes of strangers, made safe to print
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Room for a name of 255 bytes (the most the wire can say) with every byte escaped would be 1 KiB; longer names are
 * cut with "..." because they go into error texts. */
#define TEXT_QUOTE_BYTES 100

/**
 * text_quote - copy @len bytes of @bytes into @buf as printable ASCII
 * @buf: TEXT_QUOTE_BYTES long; bytes outside 0x20..0x7e, quotes and backslashes become \xNN
 * May be called in a signal handler.
 * Return: @buf, NUL-terminated.
 */
const char *text_quote(char buf[static TEXT_QUOTE_BYTES], const void *bytes, size_t len);

/**
 * text_defuse - the net below text_quote: no byte but printable ASCII stays in @line
 * Every line on its way out goes through here (errors, log, trace), so that a name that somebody forgot to quote can
 * neither begin a line of its own nor talk to a terminal. Such bytes become \xNN; what does not fit is cut off.
 * @line: NUL-terminated, in a buffer of @bytes, at most TEXT_LINE_BYTES. Return: whether there were any.
 */
#define TEXT_LINE_BYTES 1024
bool text_defuse(char *line, size_t bytes);

/* One-line form for use inside an argument list; the buffer lives until the enclosing block ends. */
#define TEXT_QUOTE(bytes, len) text_quote((char[TEXT_QUOTE_BYTES]){ 0 }, (bytes), (len))

#endif
