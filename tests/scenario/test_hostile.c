/* Lies in the framing: header, configuration, elements, commands, devices, description (doc/wire/stream.md 11). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "tests/support/hostile.h"
#include "tests/support/scene.h"

#define MACHINE_SECTION "\x07\0\0\0\x0d" HOSTILE_MACHINE

/* ---- lies that are longer than a literal -------------------------------------------------------------------- */

static void put_long_machine(struct wire *w, const struct hostile_row *row)
{
	char name[300];

	memset(name, 'p', sizeof(name));
	wire_config_n(w, (uint32_t)row->n, name, row->n);
}

/* @n times the capability @text. */
static void put_capabilities(struct wire *w, const struct hostile_row *row)
{
	const char *names[65];

	for (unsigned i = 0; i < row->n; i++)
		names[i] = row->text;
	wire_config_capabilities(w, names, (uint32_t)row->n);
}

static void put_uuid(struct wire *w, const struct hostile_row *row)
{
	wire_config_uuid(w, (const uint8_t *)row->text);
}

static void put_page_bits(struct wire *w, const struct hostile_row *row)
{
	wire_config_page_bits(w, (uint32_t)row->n);
}

static void put_subsection(struct wire *w, const struct hostile_row *row)
{
	wire_subsection(w, row->text, (uint32_t)row->n);
	wire_be32(w, 0);
}

static void put_device(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	wire_device(w, 20, &wire_standard_devices[1]);
}

/* The first of the standard devices, then the one with number @n, in section @total. */
static void put_two_devices(struct wire *w, const struct hostile_row *row)
{
	wire_device(w, 10, &wire_standard_devices[0]);
	wire_device(w, (uint32_t)row->total, &wire_standard_devices[row->n]);
}

static void put_device_without_name(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	wire_device(w, 10, &(struct wire_device){ .name = "", .data = "abcd", .bytes = 4 });
}

static void put_device_wrong_footer(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	wire_device(w, 10, &wire_standard_devices[0]);
	w->data[w->len - 1] ^= 1;
}

static void put_device_no_footer(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	wire_device(w, 10, &wire_standard_devices[0]);
	w->len -= 5;
}

static void put_device_behind_id_of_ram(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	wire_device(w, HOSTILE_RAM_ID, &wire_standard_devices[0]);
}

/* EOF, and a description @text that is said to be @n long; 0: as long as it is. */
static void put_desc(struct wire *w, const struct hostile_row *row)
{
	wire_eof(w);
	wire_vmdesc_n(w, row->n ? (uint32_t)row->n : (uint32_t)strlen(row->text), row->text, strlen(row->text));
}

static void put_desc_deep(struct wire *w, const struct hostile_row *row)
{
	wire_eof(w);
	wire_u8(w, WIRE_VMDESC);
	wire_be32(w, 1 + 4 + (uint32_t)row->n + 1);
	wire_bytes(w, "{\"a\":", 5);
	wire_fill(w, '[', row->n);
	wire_u8(w, '}');
}

static void put_desc_cut(struct wire *w, const struct hostile_row *row)
{
	(void)row;
	wire_eof(w);
	wire_vmdesc(w);
	w->len -= 3;
}

#define DEVICE(name, more) "{\"name\": \"" name "\", \"instance_id\": 0, " more "}"
#define ONE_BUFFER(name, size) \
	DEVICE(name, "\"size\": " size ", \"fields\": [{\"name\": \"data\", \"size\": " size ", \"type\": " \
	             "\"buffer\"}]")
#define TIMER(size) ONE_BUFFER("timer", size)
#define GLOBALSTATE(size) ONE_BUFFER("globalstate", size)
#define TIMER_THAT_WRAPS \
	DEVICE("timer", \
	       "\"vmsd_name\": \"timer\", \"version\": 2, \"fields\": [{\"name\": \"a\", \"array_len\": " \
	       "4611686018427387904, \"type\": \"uint64\", \"size\": 4}, {\"name\": \"b\", \"type\": \"buffer\", " \
	       "\"size\": 24}]")
#define DEVICES(list) .put = put_desc, .text = "{\"page_size\": 4096, \"devices\": [" list "]}"

#define RAM_START(id, instance, version) "\1\0\0\0" id "\3ram\0\0\0" instance "\0\0\0" version
#define RAM_END(id) "\0\0\0\0\0\0\0\x10\x7e\0\0\0" id

/* ---- the rows ---------------------------------------------------------------------------------------------- */

static const char *const no_config[] = { "send-configuration", "off", NULL };
static const char *const validate_uuid[] = { "validate-uuid", NULL };

static const struct hostile_row frame_rows[] = {
	{ "the honest stream lands", AT_FIRST, RAW(""), .code = 0 },
	{ "wrong magic", AT_HEADER, RAW("QEVN\0\0\0\3"), .code = -EPROTO, .words = "QEVM|magic|migration stream" },
	{ "version 2", AT_HEADER, RAW("QEVM\0\0\0\2"), .code = -EPROTO, .words = "version" },
	{ "version 4", AT_HEADER, RAW("QEVM\0\0\0\4"), .code = -EPROTO, .words = "version" },
	{ "no configuration", AT_CONFIG, RAW(""), .code = -EPROTO, .words = "configuration" },
	{ "a configuration where none is expected", AT_FIRST, RAW(""), .code = -EPROTO, .words = "configuration|0x07|7",
	  .params = no_config },
	{ "another machine", AT_CONFIG, RAW(MACHINE_SECTION), .code = -EPROTO, .words = "q35",
	  .config = { .machine = "pc-q35-7.2" } },
	{ "a machine whose name only begins like ours", AT_CONFIG, RAW(MACHINE_SECTION), .code = -EPROTO,
	  .words = "machine", .config = { .machine = HOSTILE_MACHINE ".1" } },
	{ "a machine of which ours is the beginning", AT_CONFIG, RAW(MACHINE_SECTION), .code = -EPROTO,
	  .words = "machine", .config = { .machine = "pc-i440fx-7" } },
	{ "a machine name of 256 bytes", AT_CONFIG, .put = put_long_machine, .n = 256, .code = -EPROTO,
	  .words = "256" },
	{ "a machine name of 4 GiB", AT_CONFIG, RAW("\x07\xff\xff\xff\xff"), .code = -EPROTO, .words = "machine" },
	{ "unknown configuration subsection", AT_CONFIG_MORE, .put = put_subsection, .text = "configuration/colour",
	  .n = 1, .code = -EPROTO, .words = "colour" },
	{ "configuration subsection of version 2", AT_CONFIG_MORE, .put = put_subsection,
	  .text = "configuration/capabilities", .n = 2, .code = -EPROTO, .words = "version" },
	{ "65 capabilities", AT_CONFIG_MORE, .put = put_capabilities, .text = "x-ignore-shared", .n = 65,
	  .code = -EPROTO, .words = "65" },
	{ "unknown capability", AT_CONFIG_MORE, .put = put_capabilities, .text = "x-teleport", .n = 1, .code = -EPROTO,
	  .words = "x-teleport" },
	{ "a validated capability that is not on here", AT_CONFIG_MORE, .put = put_capabilities,
	  .text = "x-ignore-shared", .n = 1, .code = -EPROTO, .words = "x-ignore-shared" },
	{ "pages of 2^12 bytes, said so, land", AT_CONFIG_MORE, .put = put_page_bits, .n = 12, .code = 0 },
	{ "pages of 2^9 bytes", AT_CONFIG_MORE, .put = put_page_bits, .n = 9, .code = -EPROTO, .words = "page" },
	{ "pages of 2^64 bytes", AT_CONFIG_MORE, .put = put_page_bits, .n = 64, .code = -EPROTO, .words = "page" },
	{ "pages of 2^4294967295 bytes", AT_CONFIG_MORE, .put = put_page_bits, .n = UINT32_MAX, .code = -EPROTO,
	  .words = "page" },
	{ "another UUID", AT_CONFIG_MORE, .put = put_uuid, .text = "0123456789abcdef", .code = -EPROTO, .words = "UUID",
	  .caps = validate_uuid, .config = { .uuid = "0123456789abcdeF" } },
	{ "the right UUID lands", AT_CONFIG_MORE, .put = put_uuid, .text = "0123456789abcdef", .code = 0,
	  .caps = validate_uuid, .config = { .uuid = { "0123456789abcdef" } } },
	{ "no UUID of our own lands", AT_CONFIG_MORE, .put = put_uuid, .text = "0123456789abcdef", .code = 0,
	  .caps = validate_uuid },
	{ "element type 0x09", AT_ELEMENT, RAW("\x09\0\0\0\2"), .code = -EPROTO, .words = "0x09|0x9| 9" },
	{ "element type 0xff", AT_ELEMENT, RAW("\xff"), .code = -EPROTO, .words = "0xff|255" },
	{ "a footer where an element must be", AT_ELEMENT, RAW("\x7e\0\0\0\2"), .code = -EPROTO,
	  .words = "0x7e|footer" },
	{ "a second configuration", AT_ELEMENT, RAW(MACHINE_SECTION), .code = -EPROTO, .words = "0x07|configuration" },
	{ "a subsection between elements", AT_ELEMENT, RAW("\x05\1a\0\0\0\1"), .code = -EPROTO,
	  .words = "0x05|subsection" },
	{ "a description before EOF", AT_ELEMENT, RAW("\x06\0\0\0\2{}"), .code = -EPROTO, .words = "0x06|description" },
	{ "START without a name", AT_START, RAW("\1\0\0\0\2\0\0\0\0\0\0\0\0\4"), .code = -EPROTO, .words = "name" },
	{ "START of an unknown handler", AT_COMMANDS, RAW("\1\0\0\0\3\nteleporter\0\0\0\0\0\0\0\1"), .code = -EPROTO,
	  .words = "teleporter" },
	{ "START of ram, instance 1", AT_START, RAW(RAM_START("\2", "\1", "\4")), .code = -EPROTO, .words = "ram" },
	{ "START of ram, version 5", AT_START, RAW(RAM_START("\2", "\0", "\5")), .code = -EPROTO, .words = "version" },
	{ "START of ram again", AT_SETUP, RAW(RAM_START("\3", "\0", "\4") RAM_END("\3")), .code = -EPROTO,
	  .words = "ram" },
	{ "START of ram again after PART", AT_ELEMENT, RAW(RAM_START("\3", "\0", "\4") RAM_END("\3")), .code = -EPROTO,
	  .words = "START" },
	{ "START of ram again with the same id", AT_SETUP, RAW(RAM_START("\2", "\0", "\4") RAM_END("\2")),
	  .code = -EPROTO, .words = "ram| 2" },
	{ "a device between the rounds of RAM", AT_ELEMENT, .put = put_device, .code = -EPROTO },
	{ "PART before START", AT_COMMANDS, RAW("\2\0\0\0\2\0\0\0\0\0\0\0\x10"), .code = -EPROTO, .words = "section" },
	{ "PART of an unknown id", AT_ELEMENT, RAW("\2\0\0\0\3\0\0\0\0\0\0\0\x10"), .code = -EPROTO,
	  .words = "section" },
	{ "END of an unknown id", AT_END, RAW("\3\0\0\0\3\0\0\0\0\0\0\0\x10"), .code = -EPROTO, .words = "section" },
	{ "no footer", AT_FOOTER, RAW(""), .code = -EPROTO, .words = "footer" },
	{ "footer of another section", AT_FOOTER, RAW("\x7e\0\0\0\3"), .code = -EPROTO, .words = "footer" },
	{ "EOF before END", AT_ELEMENT, RAW("\0"), .code = -EPROTO, .words = "before RAM" },
	{ "no END before the devices", AT_END, RAW(""), .code = ANY_ERROR, .ends = true },
};

static const struct hostile_row tail_rows[] = {
	{ "a description of old style lands", AT_TAIL, DEVICES(TIMER("24") ", " GLOBALSTATE("104")), .code = 0 },
	{ "a device twice", AT_DEVICES, .put = put_two_devices, .n = 0, .total = 11, .code = ANY_ERROR,
	  .words = "timer", .ends = true },
	{ "a section id twice", AT_DEVICES, .put = put_two_devices, .n = 1, .total = 10, .code = ANY_ERROR,
	  .ends = true },
	{ "the section id of ram for a device", AT_DEVICES, .put = put_device_behind_id_of_ram, .code = ANY_ERROR,
	  .ends = true },
	{ "a device without a name", AT_DEVICES, .put = put_device_without_name, .code = ANY_ERROR, .ends = true },
	{ "a device with the footer of another", AT_DEVICES, .put = put_device_wrong_footer, .code = ANY_ERROR,
	  .words = "timer|footer", .ends = true },
	{ "a device without a footer", AT_DEVICES, .put = put_device_no_footer, .code = ANY_ERROR,
	  .words = "timer|footer", .ends = true },
	{ "the description has a byte less", AT_TAIL, DEVICES(TIMER("23") ", " GLOBALSTATE("104")), .code = ANY_ERROR,
	  .ends = true },
	{ "the description has a byte more", AT_TAIL, DEVICES(TIMER("25") ", " GLOBALSTATE("104")), .code = ANY_ERROR,
	  .ends = true },
	{ "the description has 2^64 - 1 bytes", AT_TAIL, DEVICES(TIMER("18446744073709551615") ", " GLOBALSTATE("104")),
	  .code = ANY_ERROR, .ends = true },
	{ "the description has fewer than no bytes", AT_TAIL, DEVICES(TIMER("-24") ", " GLOBALSTATE("104")),
	  .code = ANY_ERROR, .ends = true },
	{ "the description's sum wraps round to the right one", AT_TAIL,
	  DEVICES(TIMER_THAT_WRAPS ", " GLOBALSTATE("104")), .code = ANY_ERROR, .ends = true },
	{ "the description has a device less", AT_TAIL, DEVICES(TIMER("24")), .code = ANY_ERROR, .ends = true },
	{ "the description has a device more", AT_TAIL, DEVICES(TIMER("24") ", " GLOBALSTATE("104") ", " TIMER("24")),
	  .code = ANY_ERROR, .ends = true },
	{ "the description has another device", AT_TAIL, DEVICES(GLOBALSTATE("24") ", " GLOBALSTATE("104")),
	  .code = ANY_ERROR, .ends = true },
	{ "the description is not JSON", AT_TAIL, .put = put_desc, .text = "{\"page_size\": 4096, \"devices\": [}",
	  .code = ANY_ERROR, .ends = true },
	{ "the description is 100000 deep", AT_TAIL, .put = put_desc_deep, .n = 100000, .code = ANY_ERROR,
	  .ends = true },
	{ "the description is cut short", AT_TAIL, .put = put_desc_cut, .code = ANY_ERROR, .ends = true },
	{ "no description where one is expected", AT_TAIL, RAW("\0"), .code = ANY_ERROR, .ends = true },
	{ "the description is said to have 4 GiB", AT_TAIL, .put = put_desc, .text = "{}", .n = UINT32_MAX,
	  .code = ANY_ERROR, .ends = true },
	{ "the description is said to have 64 MiB + 1", AT_TAIL, .put = put_desc, .text = "{}", .n = (64u << 20) + 1,
	  .code = ANY_ERROR, .ends = true },
	{ "no EOF", AT_TAIL, RAW(""), .code = ANY_ERROR, .ends = true },
	{ "bytes after the description", AT_BEHIND, RAW("x"), .code = ANY_ERROR, .ends = true },
	{ "another stream after the description", AT_BEHIND, RAW("QEVM\0\0\0\3}"), .code = ANY_ERROR, .ends = true },
};

static const struct hostile_row command_rows[] = {
	{ "command 0", AT_COMMANDS, RAW("\x08\0\0\0\0"), .code = -EPROTO, .words = "command" },
	{ "command 12", AT_COMMANDS, RAW("\x08\0\x0c\0\0"), .code = -EPROTO, .words = "command" },
	{ "command 65535", AT_COMMANDS, RAW("\x08\xff\xff\0\0"), .code = -EPROTO, .words = "command" },
	{ "OPEN_RETURN_PATH with a payload", AT_COMMANDS, RAW("\x08\0\1\0\1x"), .code = -EPROTO,
	  .words = "OPEN_RETURN_PATH" },
	{ "OPEN_RETURN_PATH of 65535 bytes", AT_COMMANDS, RAW("\x08\0\1\xff\xff"), .code = -EPROTO,
	  .words = "OPEN_RETURN_PATH" },
	{ "OPEN_RETURN_PATH again is harmless", AT_COMMANDS, RAW("\x08\0\1\0\0"), .code = 0 },
	{ "PING of 3 bytes", AT_COMMANDS, RAW("\x08\0\2\0\3abc"), .code = -EPROTO, .words = "PING" },
	{ "PING of 5 bytes", AT_COMMANDS, RAW("\x08\0\2\0\5abcde"), .code = -EPROTO, .words = "PING" },
	{ "PING of no bytes", AT_COMMANDS, RAW("\x08\0\2\0\0"), .code = -EPROTO, .words = "PING" },
	{ "PING before OPEN_RETURN_PATH", AT_FIRST, RAW("\x08\0\2\0\4\0\0\0\1"), .code = -EPROTO, .words = "PING" },
	{ "ADVISE of 8 bytes", AT_COMMANDS,
	  RAW("\x08\0\3\0\x08"
	      "12345678"),
	  .code = -EPROTO, .words = "ADVISE" },
	{ "LISTEN without ADVISE", AT_COMMANDS, RAW("\x08\0\4\0\0"), .code = -EPROTO, .words = "LISTEN" },
	{ "LISTEN of 1 byte", AT_COMMANDS, RAW("\x08\0\4\0\1x"), .code = -EPROTO, .words = "LISTEN" },
	{ "RUN without LISTEN", AT_COMMANDS, RAW("\x08\0\5\0\0"), .code = -EPROTO, .words = "RUN" },
	{ "RAM_DISCARD without ADVISE", AT_ELEMENT,
	  RAW("\x08\0\6\0\x19\0\6pc.ram\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x10\0"), .code = -EPROTO, .words = "DISCARD" },
	{ "RAM_DISCARD of 19 bytes", AT_ELEMENT, RAW("\x08\0\6\0\x13\0\6pc.ram\0\0\0\0\0\0\0\x10\0\0\0\0"),
	  .code = -EPROTO, .words = "DISCARD" },
	{ "PACKAGED without ADVISE", AT_ELEMENT, RAW("\x08\0\7\0\4\0\0\0\5\x08\0\4\0\0"), .code = -EPROTO,
	  .words = "PACKAGE" },
	{ "PACKAGED of no bytes", AT_ELEMENT, RAW("\x08\0\7\0\4\0\0\0\0"), .code = -EPROTO, .words = "PACKAGE" },
	{ "PACKAGED of 4 GiB", AT_ELEMENT, RAW("\x08\0\7\0\4\xff\xff\xff\xff"), .code = -EPROTO, .words = "PACKAGE" },
	{ "PACKAGED with a length of 3", AT_ELEMENT, RAW("\x08\0\7\0\3\0\0\1"), .code = -EPROTO, .words = "PACKAGE" },
	{ "ENABLE_COLO", AT_COMMANDS, RAW("\x08\0\x08\0\0"), .code = ANY_ERROR, .words = "COLO" },
	{ "RESUME of 1 byte", AT_COMMANDS, RAW("\x08\0\x09\0\1x"), .code = -EPROTO, .words = "RESUME" },
	{ "RECV_BITMAP with another length inside", AT_ELEMENT, RAW("\x08\0\x0a\0\7\5pc.ram"), .code = -EPROTO,
	  .words = "RECV_BITMAP|bitmap" },
	{ "RECV_BITMAP of no bytes", AT_ELEMENT, RAW("\x08\0\x0a\0\0"), .code = -EPROTO,
	  .words = "RECV_BITMAP|bitmap" },
	{ "SWITCHOVER_START of 1 byte", AT_ELEMENT, RAW("\x08\0\x0b\0\1x"), .code = -EPROTO, .words = "SWITCHOVER" },
};

TEST_CASE("frame", 30);

/*
 * Without a return path the source closes after its last byte (doc/wire/stream.md 1.6); until then more may come, and
 * must not. They are refused when nothing comes any more: before, what looks complete may be inside the state of a
 * device.
 */
TEST(test_bytes_that_come_after_a_complete_stream_are_refused)
{
	struct scene s;
	struct pump p;
	int r = 1;

	scene_begin(&s, &(struct honest_opts){ 0 });
	wire_u8(&s.wire, 'x');
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(land_listen_fd(&s.e, pump_open(&p, &s.wire)), 0);
	p.end = PUMP_HOLD;
	p.stop_at = s.wire.len - 1;
	for (unsigned i = 0; i < 200 && r == 1; i++) {
		pump_step(&p);
		r = inm_dispatch(s.e.inm);
	}
	ck_assert_int_eq(r, 1);
	ck_assert_uint_eq(s.e.start_calls, 0);
	p.stop_at = s.wire.len;
	pump_step(&p);
	ck_assert_int_eq(inm_run_until(s.e.inm, deadline_after_ns(40 * NS_PER_S)), -EPROTO);
	ck_assert_ptr_nonnull(strstr(inm_error(s.e.inm), "0x"));
	ck_assert_uint_eq(s.e.start_calls, 0);
	pump_close(&p);
	scene_end(&s);
}

TEST_ROWS(test_a_lie_in_the_frame_is_refused_by_name_and_offset, frame_rows)
{
	hostile_check(&frame_rows[_i]);
}

TEST_ROWS(test_a_lie_in_a_command_is_refused_by_name_and_offset, command_rows)
{
	hostile_check(&command_rows[_i]);
}

TEST_ROWS(test_a_lie_in_the_tail_is_refused_and_the_guest_does_not_start, tail_rows)
{
	hostile_check(&tail_rows[_i]);
}
