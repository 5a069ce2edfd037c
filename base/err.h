/*
 * err.h - an error with its story
 *
 * Floors 0 to 2 return negative errno alone. From engine/channel up the last argument is a struct err, owned by the
 * caller, never NULL, of fixed size: making an error allocates nothing and cannot fail. Context is added in front on
 * the way up, so the user reads from the outside in:
 *
 *   incoming: section 'ram' at 0x7c21: page record: block 'pc.ram' has no offset 0x80000000 (EPROTO)
 *
 * Invariants:
 * (1) The text never holds bytes of the peer unescaped: quote them with text_quote() (base/text.h). What was forgotten
 *     is caught by text_defuse: the text is one line of printable ASCII.
 * (2) -ECANCELED carries no text, and neither err_set nor err_up gives it one: a cancel is not a story.
 * (3) A text that does not fit loses its middle context, never the cause at its end.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

struct err {
	int code;       /* negative errno, 0 when there is no error */
	char text[508]; /* NUL-terminated, without the code */
};

#define ERR_NONE ((struct err){ 0 })

/** err_set - start a story. Return: @code (negative errno), so that `return err_set(...)` reads as it acts. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/** err_up - put "context: " in front of the story in @err. Return: @code, which is the code of @err. */
int err_up(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/** err_name - "EPROTO" for -EPROTO, or the number in words for one without a name */
const char *err_name(int code);

#endif
