#include "tests/support/roomy.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROOMY_HUGE (2ull << 20)
#define ROOMY_RAM_ID 2u

void roomy_begin(struct roomy *r)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

	stall_need_figures(); /* before the mapping: a sanitizer has no room for so much */
	r->fd = -1;
	if (r->backing == ROOMY_MEMFD) {
		r->fd = memfd_create("roomy", MFD_CLOEXEC);
		ck_assert_int_ge(r->fd, 0);
		ck_assert_int_eq(ftruncate(r->fd, (off_t)r->bytes), 0);
		flags = MAP_SHARED | MAP_NORESERVE;
	}
	r->area = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, flags, r->fd, 0);
	ck_assert_ptr_ne(r->area, MAP_FAILED);
}

void roomy_end(struct roomy *r)
{
	munmap(r->area, r->bytes);
	if (r->fd >= 0)
		close(r->fd);
}

static int give(void *opaque, struct inm_ram_block *block)
{
	struct roomy *r = opaque;

	if (block->bytes >= ROOMY_HUGE)
		r->used = (r->used + ROOMY_HUGE - 1) & ~(ROOMY_HUGE - 1);
	if (block->bytes > r->bytes - r->used)
		return -ENOMEM;
	block->fd = r->fd;
	block->fd_offset = r->fd < 0 ? 0 : r->used;
	block->addr = r->fd < 0 || r->guest_view ? r->area + r->used : NULL;
	r->used += block->bytes;
	r->blocks++;
	return 0;
}

static int take_device(void *opaque, const struct inm_device *device)
{
	struct roomy *r = opaque;

	(void)device;
	r->devices++;
	return 0;
}

static void start(void *opaque, const char *run_state)
{
	(void)opaque;
	(void)run_state;
}

static const struct inm_ops roomy_ops = {
	.size = sizeof(struct inm_ops), .ram_block = give, .device = take_device, .start_vcpus = start
};

static void make(struct roomy *r, struct inm **ret_inm, const struct land_opts *o)
{
	struct inm_config config = { .size = sizeof(config), .log_level = INM_LOG_ERROR };

	ck_assert_int_eq(inm_new(ret_inm, &config, o->ops ? o->ops : &roomy_ops, r), 0);
	if (o->return_path)
		ck_assert_int_eq(inm_set_capability(*ret_inm, "return-path", true), 0);
	for (unsigned i = 0; o->caps && o->caps[i]; i++)
		ck_assert_int_eq(inm_set_capability(*ret_inm, o->caps[i], true), 0);
	for (unsigned i = 0; o->params && o->params[i]; i += 2)
		ck_assert_int_eq(inm_set_parameter(*ret_inm, o->params[i], o->params[i + 1]), 0);
}

int roomy_land(struct roomy *r, const struct wire *w, const struct land_opts *o)
{
	const struct source_plan plan = { .wire = w,
		                          .return_path = o->return_path,
		                          .end = o->end,
		                          .pauses = o->pauses,
		                          .pause_count = o->pause_count,
		                          .give_up_ms = 100000 };
	struct source_report report;
	struct source src;
	struct inm *inm;
	char uri[32];

	make(r, &inm, o);
	snprintf(uri, sizeof(uri), "fd:%d", source_play_pair(&src, &plan, SOURCE_SOCKETPAIR));
	ck_assert_int_eq(inm_listen(inm, uri), 0);
	stall_begin();
	r->result = inm_run_until(inm, deadline_after_ns((o->deadline_ms ? o->deadline_ms : 60000) * NS_PER_MS));
	stall_end(&r->seen);
	snprintf(r->error, sizeof(r->error), "%s", inm_error(inm) ? inm_error(inm) : "");
	r->stats.size = sizeof(r->stats);
	inm_get_stats(inm, &r->stats);
	inm_free(inm);
	source_wait(&src, &report);
	return r->result;
}

struct wire_block *roomy_names(unsigned count, unsigned bytes, uint64_t block_bytes)
{
	struct wire_block *blocks = calloc(1, count * (sizeof(*blocks) + bytes + 1));
	char *text = (char *)(blocks + count);

	ck_assert_ptr_nonnull(blocks);
	for (unsigned i = 0; i < count; i++, text += bytes + 1) {
		memset(text, 'x', bytes);
		for (unsigned k = 0, n = i; k < 4 && k < bytes; k++, n /= 16)
			text[k] = (char)('a' + n % 16);
		blocks[i] = (struct wire_block){ .name = text, .bytes = block_bytes };
	}
	return blocks;
}

void roomy_head(struct wire *w, bool return_path)
{
	wire_header(w);
	wire_config(w, "pc-i440fx-7.2");
	if (return_path)
		wire_open_return_path(w);
}

void roomy_ram(struct wire *w, const struct wire_block *blocks, unsigned count)
{
	wire_section(w, WIRE_START, ROOMY_RAM_ID, "ram", 0, 4);
	wire_mem_size(w, blocks, count);
	wire_ram_end(w, ROOMY_RAM_ID);
}

void roomy_ram_end(struct wire *w)
{
	wire_part(w, WIRE_END, ROOMY_RAM_ID);
	wire_ram_end(w, ROOMY_RAM_ID);
}

void roomy_tail(struct wire *w)
{
	roomy_ram_end(w);
	wire_device(w, 5, &wire_standard_devices[0]);
	wire_eof(w);
	wire_vmdesc(w);
}
