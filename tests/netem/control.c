#include "tests/netem/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The word without its direction; @ret_paths: bit 0 to-destination, bit 1 to-source. */
static const char *word_of(const char *name, unsigned int *ret_paths)
{
	static const char *const prefixes[] = { "to-destination-", "to-source-" };

	for (unsigned int n = 0; n < 2; n++) {
		if (!strncmp(name, prefixes[n], strlen(prefixes[n]))) {
			*ret_paths = 1u << n;
			return name + strlen(prefixes[n]);
		}
	}
	*ret_paths = 3;
	return name;
}

static bool is_switch(const char *word)
{
	return !strcmp(word, "down") || !strcmp(word, "up");
}

bool control_known(const char *name, bool *ret_bare)
{
	unsigned int which;
	const char *word = word_of(name, &which);

	if (!is_switch(word) && strcmp(word, "blackout") != 0 && !settings_known(word))
		return false;
	*ret_bare = is_switch(word);
	return true;
}

static int add_blackouts(struct path *p, const char *value, uint64_t now_ns, struct err *err)
{
	struct blackout list[BLACKOUTS_MAX];
	int count = blackouts_parse(value, list, err);

	for (int n = 0; n < count; n++) {
		list[n].at_ns += now_ns;
		if (path_blackout(p, list[n], now_ns) < 0)
			return err_set(err, -ENOSPC, "blackout: more than %d are to come", BLACKOUTS_MAX);
	}
	return count < 0 ? count : 0;
}

static int apply_to(struct path *p, const char *word, const char *value, uint64_t now_ns, struct err *err)
{
	if (is_switch(word)) {
		p->down = !strcmp(word, "down");
		return 0;
	}
	if (!strcmp(word, "blackout"))
		return add_blackouts(p, value, now_ns, err);
	return settings_set(&p->settings, word, value, err);
}

int control_apply(struct path paths[static 2], const char *name, const char *value, uint64_t now_ns, struct err *err)
{
	unsigned int which;
	const char *word = word_of(name, &which);
	bool bare;
	int r = 0;

	if (!control_known(name, &bare))
		return err_set(err, -EINVAL, "there is no word '%s'", name);
	if (bare != !value)
		return err_set(err, -EINVAL, bare ? "%s has no value" : "%s needs a value", name);
	/* What one direction takes the other takes, too: a mistake stops at the first, before anything is changed. */
	for (unsigned int n = 0; n < 2 && r == 0; n++) {
		if (which & 1u << n)
			r = apply_to(&paths[n], word, value, now_ns, err);
	}
	return r;
}

static int address_of(const char *path, struct sockaddr_un *ret_address, struct err *err)
{
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof ret_address->sun_path)
		return err_set(err, -ENAMETOOLONG, "the path of a socket has at most %zu bytes: %s",
		               sizeof ret_address->sun_path - 1, path);
	strcpy(ret_address->sun_path, path);
	return 0;
}

int control_open(struct control *c, const char *path, struct path paths[static 2], struct err *err)
{
	struct sockaddr_un address;
	int r;

	*c = (struct control){ .fd = -1, .paths = paths };
	for (int n = 0; n < CONTROL_CLIENTS_MAX; n++)
		c->clients[n].fd = -1;
	if (!path)
		return 0;
	r = address_of(path, &address, err);
	if (r < 0)
		return r;
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(c->fd, 8) < 0) {
		r = -errno;
		return err_set(err, r, "cannot listen on %s (%s)", path, strerror(-r));
	}
	c->path = path;
	return 0;
}

void control_close(struct control *c)
{
	for (int n = 0; n < CONTROL_CLIENTS_MAX; n++) {
		if (c->clients[n].fd >= 0)
			close(c->clients[n].fd);
	}
	if (c->fd >= 0)
		close(c->fd);
	if (c->path)
		unlink(c->path);
}

static void say(int fd, const char *text, size_t bytes)
{
	/* To one who does not read, nothing is said: the link must not wait for anybody. */
	if (send(fd, text, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
}

static void say_stats(struct control *c, int fd)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);

	if (!f)
		return;
	c->stats(c->opaque, f);
	fclose(f);
	say(fd, text, bytes);
	free(text);
}

/* All of it, or nothing of it. */
static int apply_checked(struct path *paths, const char *name, const char *value, uint64_t now_ns, struct err *err)
{
	struct settings before[2] = { paths[0].settings, paths[1].settings };
	int r = control_apply(paths, name, value, now_ns, err);

	for (int n = 0; n < 2 && r == 0; n++)
		r = settings_check(&paths[n].settings, err);
	if (r < 0) {
		paths[0].settings = before[0];
		paths[1].settings = before[1];
	}
	return r;
}

static void serve_line(struct control *c, int fd, char *line, uint64_t now_ns)
{
	struct err err = ERR_NONE;
	char answer[600] = "ok\n", *rest = line, *name, *value;

	name = strtok_r(rest, " \t\r", &rest);
	value = strtok_r(NULL, " \t\r", &rest);
	if (!name)
		return;
	if (!strcmp(name, "stats") && !value) {
		say_stats(c, fd);
		return;
	}
	if (strtok_r(NULL, " \t\r", &rest))
		err_set(&err, -EINVAL, "a line is a word and its value");
	else
		apply_checked(c->paths, name, value, now_ns, &err);
	if (err.code)
		snprintf(answer, sizeof answer, "error: %s\n", err.text);
	say(fd, answer, strlen(answer));
}

static void serve_client(struct control *c, struct control_client *client, uint64_t now_ns)
{
	ssize_t n = recv(client->fd, client->line + client->used, sizeof client->line - client->used, MSG_DONTWAIT);
	char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		client->used += (size_t)n;
	while (n > 0 && (end = memchr(client->line, '\n', client->used))) {
		size_t taken = (size_t)(end - client->line) + 1;

		*end = 0;
		serve_line(c, client->fd, client->line, now_ns);
		client->used -= taken;
		memmove(client->line, client->line + taken, client->used);
	}
	if (n <= 0 || client->used == sizeof client->line) {
		close(client->fd);
		*client = (struct control_client){ .fd = -1 };
	}
}

static void accept_client(struct control *c)
{
	int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (int n = 0; fd >= 0 && n < CONTROL_CLIENTS_MAX; n++) {
		if (c->clients[n].fd < 0) {
			c->clients[n] = (struct control_client){ .fd = fd };
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

void control_polls(const struct control *c, struct pollfd *polls)
{
	polls[0] = (struct pollfd){ .fd = c->fd, .events = POLLIN };
	for (int n = 0; n < CONTROL_CLIENTS_MAX; n++)
		polls[1 + n] = (struct pollfd){ .fd = c->clients[n].fd, .events = POLLIN };
}

void control_serve(struct control *c, const struct pollfd *polls, uint64_t now_ns)
{
	for (int n = 0; n < CONTROL_CLIENTS_MAX; n++) {
		if (polls[1 + n].revents)
			serve_client(c, &c->clients[n], now_ns);
	}
	if (polls[0].revents)
		accept_client(c);
}

int control_tell(const char *path, char **lines, struct err *err)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r, failed = 0;
	struct sockaddr_un address;
	char *answer = NULL;
	size_t room = 0;
	FILE *f;

	r = address_of(path, &address, err);
	if (r == 0 && (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)) {
		r = -errno;
		r = err_set(err, r, "no link answers at %s (%s)", path, strerror(-r));
	}
	f = r == 0 ? fdopen(fd, "r+") : NULL;
	for (; f && *lines && r == 0; lines++) {
		dprintf(fd, "%s\n", *lines);
		if (getline(&answer, &room, f) < 0) {
			r = err_set(err, -EPIPE, "the link at %s has ended", path);
			break;
		}
		failed |= !strncmp(answer, "error", 5);
		fputs(answer, !strncmp(answer, "error", 5) ? stderr : stdout);
	}
	free(answer);
	if (f)
		fclose(f);
	else if (fd >= 0)
		close(fd);
	return r < 0 ? r : failed;
}
