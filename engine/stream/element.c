#include "engine/stream/element.h"

#include "base/err.h"
#include "engine/stream/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* type, be32, str8, be32, be32 */
int element_section(struct section_head *ret, const uint8_t *at, size_t bytes)
{
	size_t name_bytes;

	if (bytes < 6)
		return 0;
	name_bytes = at[5];
	if (name_bytes == 0)
		return -EPROTO;
	if (bytes < 6 + name_bytes + 8)
		return 0;
	*ret = (struct section_head){
		.name = (const char *)at + 6,
		.name_bytes = (uint8_t)name_bytes,
		.section_id = be32_load(at + 1),
		.instance_id = be32_load(at + 6 + name_bytes),
		.version_id = be32_load(at + 6 + name_bytes + 4),
	};
	return (int)(6 + name_bytes + 8);
}

int element_read_section(struct section_head *ret, char ret_name[static 256], struct reader *r, struct err *err)
{
	size_t want = 6;
	int n, e;

	do {
		e = reader_need(r, want, err);
		if (e < 0)
			return e;
		n = element_section(ret, reader_data(r), reader_buffered(r));
		want = reader_buffered(r) + 1;
	} while (n == 0);
	if (n < 0 || memchr(ret->name, '\0', ret->name_bytes))
		return err_set(err, -EPROTO, "a section without a proper name");
	memcpy(ret_name, ret->name, ret->name_bytes);
	ret_name[ret->name_bytes] = '\0';
	ret->name = ret_name;
	reader_skip(r, (size_t)n);
	return 0;
}

int element_footer(uint32_t *ret_section_id, const uint8_t *at, size_t bytes)
{
	if (bytes > 0 && at[0] != WIRE_SECTION_FOOTER)
		return -EPROTO;
	if (bytes < FOOTER_BYTES)
		return 0;
	*ret_section_id = be32_load(at + 1);
	return FOOTER_BYTES;
}

int element_read_footer(struct reader *r, uint32_t section_id, struct err *err)
{
	uint32_t id = 0;
	size_t want = 1;
	int n, e;

	do {
		e = reader_need(r, want, err);
		if (e < 0)
			return e;
		n = element_footer(&id, reader_data(r), reader_buffered(r));
		want = FOOTER_BYTES;
	} while (n == 0);
	if (n < 0)
		return err_set(err, -EPROTO, "footer expected, found 0x%02x", *reader_data(r));
	if (id != section_id)
		return err_set(err, -EPROTO, "it names section %" PRIu32 " instead of %" PRIu32, id, section_id);
	reader_skip(r, (size_t)n);
	return 0;
}

/* type, be16, be16 */
int element_command(struct command_head *ret, const uint8_t *at, size_t bytes)
{
	if (bytes < COMMAND_HEAD_BYTES)
		return 0;
	*ret = (struct command_head){ .id = be16_load(at + 1), .payload_bytes = be16_load(at + 3) };
	return COMMAND_HEAD_BYTES;
}

int element_read_command(struct command_head *ret, struct reader *r, struct err *err)
{
	int e = reader_need(r, COMMAND_HEAD_BYTES, err);

	if (e < 0)
		return e;
	reader_skip(r, (size_t)element_command(ret, reader_data(r), COMMAND_HEAD_BYTES));
	return 0;
}

bool element_recv_bitmap(const char **ret_name, size_t *ret_name_bytes, const uint8_t *payload, size_t bytes)
{
	if (bytes == 0 || payload[0] != bytes - 1)
		return false;
	*ret_name = (const char *)payload + 1;
	*ret_name_bytes = payload[0];
	return true;
}

int element_description(size_t *ret_json_bytes, const uint8_t *at, size_t bytes)
{
	if (bytes <= DESCRIPTION_HEAD_BYTES)
		return 0;
	if (at[0] != WIRE_EOF || at[1] != WIRE_VMDESCRIPTION || at[DESCRIPTION_HEAD_BYTES] != '{')
		return -EPROTO;
	*ret_json_bytes = be32_load(at + 2);
	return DESCRIPTION_HEAD_BYTES;
}
