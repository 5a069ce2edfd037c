#include "engine/line.h"

#include "base/log.h"
#include "coroutine/co.h"

static bool is_sibling(const struct connection *a, const struct connection *b)
{
	return a != b && chan_same_peer(a->name, b->name);
}

void line_init(struct line *line)
{
	list_init(&line->unknown);
	line->count = 0;
}

void line_join(struct line *line, struct connection *conn)
{
	struct list *at;

	list_push_tail(&line->unknown, &conn->node);
	line->count++;
	for (at = line->unknown.next; at != &line->unknown; at = at->next) {
		struct connection *other = container_of(at, struct connection, node);

		if (is_sibling(conn, other)) {
			conn->siblings++;
			other->siblings++;
		}
	}
}

void line_leave(struct line *line, struct connection *conn)
{
	struct list *at;

	if (!list_linked(&conn->node))
		return;
	list_unlink(&conn->node);
	line->count--;
	for (at = line->unknown.next; at != &line->unknown; at = at->next) {
		struct connection *other = container_of(at, struct connection, node);

		if (is_sibling(conn, other))
			other->siblings--;
	}
}

void line_evict(struct line *line, struct connection *conn)
{
	line_leave(line, conn);
	conn->evicted = true;
	if (conn->co)
		co_cancel(conn->co);
}

void line_evict_one(struct line *line, const struct log *log)
{
	struct connection *conn = container_of(line->unknown.next, struct connection, node);
	struct list *at;

	for (at = conn->node.next; at != &line->unknown; at = at->next) {
		struct connection *other = container_of(at, struct connection, node);

		if (other->siblings > conn->siblings)
			conn = other;
	}
	log_often(log, LOG_CONNECTIONS, LOG_WARN,
	          "connection from %s closed: %zu have not said what they are, %zu of them from there", conn->name,
	          line->count, conn->siblings + 1);
	line_evict(line, conn);
}
