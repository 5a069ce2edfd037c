#include "engine/line.h"

#include "base/log.h"
#include "coroutine/co.h"
#include "engine/incoming.h"

static bool is_sibling(const struct connection *a, const struct connection *b)
{
	return a != b && chan_same_peer(a->name, b->name);
}

void line_join(struct connection *conn)
{
	struct inm *inm = conn->inm;
	struct list *at;

	list_push_tail(&inm->unknown, &conn->node);
	inm->unknown_count++;
	for (at = inm->unknown.next; at != &inm->unknown; at = at->next) {
		struct connection *other = container_of(at, struct connection, node);

		if (is_sibling(conn, other)) {
			conn->siblings++;
			other->siblings++;
		}
	}
}

void line_leave(struct connection *conn)
{
	struct inm *inm = conn->inm;
	struct list *at;

	if (!list_linked(&conn->node))
		return;
	list_unlink(&conn->node);
	inm->unknown_count--;
	for (at = inm->unknown.next; at != &inm->unknown; at = at->next) {
		struct connection *other = container_of(at, struct connection, node);

		if (is_sibling(conn, other))
			other->siblings--;
	}
}

void line_evict(struct connection *conn)
{
	line_leave(conn);
	conn->evicted = true;
	if (conn->co)
		co_cancel(conn->co);
}

void line_evict_one(struct inm *inm)
{
	struct connection *conn = container_of(inm->unknown.next, struct connection, node);
	struct list *at;

	for (at = conn->node.next; at != &inm->unknown; at = at->next) {
		struct connection *other = container_of(at, struct connection, node);

		if (other->siblings > conn->siblings)
			conn = other;
	}
	log_often(&inm->log, LOG_CONNECTIONS, LOG_WARN,
	          "connection from %s closed: %zu have not said what they are, %zu of them from there", conn->name,
	          inm->unknown_count, conn->siblings + 1);
	line_evict(conn);
}
