/*
 * text.h - bytes of strangers, made safe to print
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

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

/* One-line form for use inside an argument list; the buffer lives until the enclosing block ends. */
#define TEXT_QUOTE(bytes, len) text_quote((char[TEXT_QUOTE_BYTES]){ 0 }, (bytes), (len))

#endif
