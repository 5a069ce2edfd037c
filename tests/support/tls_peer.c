#include "tests/support/tls_peer.h"
#include "tests/support/high_fd.h"
#include "tests/support/temp.h"

#if HAVE_GNUTLS

#include "base/assert.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MUST(call) \
	do { \
		int must_code_ = (call); \
		if (must_code_ < 0) { \
			fprintf(stderr, "%s: %s\n", #call, gnutls_strerror(must_code_)); \
			abort(); \
		} \
	} while (0)

/* ---- certificates ----------------------------------------------------------------------------------------------- */

static gnutls_x509_privkey_t key_make(unsigned rsa_bits)
{
	gnutls_x509_privkey_t key;

	MUST(gnutls_x509_privkey_init(&key));
	if (rsa_bits)
		MUST(gnutls_x509_privkey_generate(key, GNUTLS_PK_RSA, rsa_bits, 0));
	else
		MUST(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
		                                  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
	return key;
}

static void set_extensions(gnutls_x509_crt_t crt, const struct tls_cert_plan *plan)
{
	if (!plan->no_constraints)
		MUST(gnutls_x509_crt_set_basic_constraints(crt, plan->ca, -1));
	if (plan->usage)
		MUST(gnutls_x509_crt_set_key_usage(crt, plan->usage));
	if (plan->purpose)
		MUST(gnutls_x509_crt_set_key_purpose_oid(crt, plan->purpose, 1));
	if (!plan->ca)
		MUST(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, "localhost", 9, GNUTLS_FSAN_SET));
}

void tls_cert_make(struct tls_cert *ret_cert, const struct tls_cert_plan *plan, const struct tls_cert *issuer)
{
	bool dated = plan->from_s || plan->to_s;
	uint8_t serial[8];
	const char *where;
	time_t now = time(NULL);

	ret_cert->key = key_make(plan->rsa_bits);
	MUST(gnutls_x509_crt_init(&ret_cert->crt));
	MUST(gnutls_x509_crt_set_version(ret_cert->crt, 3));
	MUST(gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial)));
	serial[0] &= 0x7f;
	MUST(gnutls_x509_crt_set_serial(ret_cert->crt, serial, sizeof(serial)));
	MUST(gnutls_x509_crt_set_dn(ret_cert->crt, plan->name, &where));
	MUST(gnutls_x509_crt_set_activation_time(ret_cert->crt, now + (dated ? plan->from_s : -3600)));
	MUST(gnutls_x509_crt_set_expiration_time(ret_cert->crt, now + (dated ? plan->to_s : 3600)));
	MUST(gnutls_x509_crt_set_key(ret_cert->crt, ret_cert->key));
	set_extensions(ret_cert->crt, plan);
	if (!issuer)
		issuer = ret_cert;
	MUST(gnutls_x509_crt_sign2(ret_cert->crt, issuer->crt, issuer->key, GNUTLS_DIG_SHA256, 0));
}

void tls_cert_free(struct tls_cert *cert)
{
	gnutls_x509_crt_deinit(cert->crt);
	gnutls_x509_privkey_deinit(cert->key);
}

static void save(const char *dir, const char *name, const void *data, size_t bytes)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	ASSERT(f);
	ASSERT(fwrite(data, 1, bytes, f) == bytes);
	ASSERT(fclose(f) == 0);
}

void tls_file_save(const char *dir, const char *name, const char *text)
{
	save(dir, name, text, strlen(text));
}

void tls_cert_save(const struct tls_cert *cert, const char *dir, const char *cert_name, const char *key_name)
{
	gnutls_datum_t pem;

	if (cert_name) {
		MUST(gnutls_x509_crt_export2(cert->crt, GNUTLS_X509_FMT_PEM, &pem));
		save(dir, cert_name, pem.data, pem.size);
		gnutls_free(pem.data);
	}
	if (key_name) {
		MUST(gnutls_x509_privkey_export2(cert->key, GNUTLS_X509_FMT_PEM, &pem));
		save(dir, key_name, pem.data, pem.size);
		gnutls_free(pem.data);
	}
}

void tls_crl_save(const struct tls_cert *issuer, const struct tls_cert *revoked, const char *dir, long to_s)
{
	time_t now = time(NULL);
	gnutls_x509_crl_t crl;
	gnutls_datum_t pem;

	MUST(gnutls_x509_crl_init(&crl));
	MUST(gnutls_x509_crl_set_version(crl, 2));
	MUST(gnutls_x509_crl_set_this_update(crl, now - 7200));
	MUST(gnutls_x509_crl_set_next_update(crl, now + to_s));
	MUST(gnutls_x509_crl_set_crt(crl, revoked->crt, now - 3600));
	MUST(gnutls_x509_crl_set_number(crl, "\1", 1));
	MUST(gnutls_x509_crl_sign2(crl, issuer->crt, issuer->key, GNUTLS_DIG_SHA256, 0));
	MUST(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &pem));
	save(dir, "ca-crl.pem", pem.data, pem.size);
	gnutls_free(pem.data);
	gnutls_x509_crl_deinit(crl);
}

void tls_dir_make(char dir[static TEMP_NAME_BYTES], struct tls_cert *ret_ca)
{
	const struct tls_cert_plan ca_plan = { .name = "CN=the ca",
		                               .ca = true,
		                               .usage = GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN };
	const struct tls_cert_plan server_plan = { .name = "CN=localhost",
		                                   .usage = GNUTLS_KEY_DIGITAL_SIGNATURE,
		                                   .purpose = GNUTLS_KP_TLS_WWW_SERVER };
	const struct tls_cert_plan client_plan = { .name = "CN=mfsource,O=mf",
		                                   .usage = GNUTLS_KEY_DIGITAL_SIGNATURE,
		                                   .purpose = GNUTLS_KP_TLS_WWW_CLIENT };
	struct tls_cert ca, server, client;

	temp_name(dir, "tls");
	ASSERT(mkdtemp(dir));
	tls_cert_make(&ca, &ca_plan, NULL);
	tls_cert_make(&server, &server_plan, &ca);
	tls_cert_make(&client, &client_plan, &ca);
	tls_cert_save(&ca, dir, "ca-cert.pem", NULL);
	tls_cert_save(&server, dir, "server-cert.pem", "server-key.pem");
	tls_cert_save(&client, dir, "client-cert.pem", "client-key.pem");
	tls_file_save(dir, "keys.psk", "qemu:" TLS_PEER_PSK_KEY "\n");
	tls_cert_free(&server);
	tls_cert_free(&client);
	if (ret_ca)
		*ret_ca = ca;
	else
		tls_cert_free(&ca);
}

void tls_dir_remove(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[512];

	ASSERT(d);
	while ((e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		unlink(path);
	}
	closedir(d);
	rmdir(dir);
}

/* ---- the client's transport ------------------------------------------------------------------------------------- */

static ssize_t peer_pull(gnutls_transport_ptr_t ptr, void *buf, size_t bytes)
{
	struct tls_peer *peer = ptr;

	return recv(peer->fd, buf, bytes, 0);
}

static void write_fully(int fd, const char *p, size_t bytes)
{
	while (bytes > 0) {
		ssize_t n = send(fd, p, bytes, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return; /* the server has hung up: the next read says so */
		p += n;
		bytes -= (size_t)n;
	}
}

_Noreturn static void child_end(struct tls_peer *peer)
{
	ASSERT(write(peer->report_fd, &peer->report, sizeof(peer->report)) == sizeof(peer->report));
	_exit(0);
}

/* The rest of the handshake is never sent. */
_Noreturn static void stop_here(struct tls_peer *peer)
{
	char c;

	if (peer->plan->stall_after)
		while (recv(peer->fd, &c, 1, 0) > 0)
			;
	close(peer->fd);
	child_end(peer);
}

static ssize_t peer_push(gnutls_transport_ptr_t ptr, const void *buf, size_t bytes)
{
	struct tls_peer *peer = ptr;
	size_t limit = peer->plan->stall_after ? peer->plan->stall_after : peer->plan->hang_up_after;
	size_t n = bytes;

	if (limit && peer->written + n > limit)
		n = limit - peer->written;
	write_fully(peer->fd, buf, n);
	peer->written += n;
	if (limit && peer->written == limit)
		stop_here(peer);
	return (ssize_t)bytes;
}

static int peer_pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
	struct tls_peer *peer = ptr;
	struct pollfd pfd = { peer->fd, POLLIN, 0 };

	return poll(&pfd, 1, (int)ms);
}

/* ---- the client ------------------------------------------------------------------------------------------------- */

static void use_x509(struct tls_peer *peer)
{
	const struct tls_peer_plan *plan = peer->plan;
	gnutls_certificate_credentials_t cred;
	char cert[512], key[512];

	MUST(gnutls_certificate_allocate_credentials(&cred));
	if (!plan->cert_name || plan->cert_name[0]) {
		snprintf(cert, sizeof(cert), "%s/%s", plan->dir, plan->cert_name ? plan->cert_name : "client-cert.pem");
		snprintf(key, sizeof(key), "%s/%s", plan->dir, plan->key_name ? plan->key_name : "client-key.pem");
		MUST(gnutls_certificate_set_x509_key_file(cred, cert, key, GNUTLS_X509_FMT_PEM));
		/* A source shows what it has, also to a server that asks for another CA's. */
		gnutls_certificate_set_flags(cred, 0);
	}
	if (plan->ca_name) {
		snprintf(cert, sizeof(cert), "%s/%s", plan->dir, plan->ca_name);
		MUST(gnutls_certificate_set_x509_trust_file(cred, cert, GNUTLS_X509_FMT_PEM));
		gnutls_session_set_verify_cert(peer->session, "localhost", 0);
	}
	MUST(gnutls_credentials_set(peer->session, GNUTLS_CRD_CERTIFICATE, cred));
}

static void use_psk(struct tls_peer *peer)
{
	const char *hex = peer->plan->key ? peer->plan->key : TLS_PEER_PSK_KEY;
	const gnutls_datum_t key = { (unsigned char *)(uintptr_t)hex, (unsigned)strlen(hex) };
	gnutls_psk_client_credentials_t cred;

	MUST(gnutls_psk_allocate_client_credentials(&cred));
	MUST(gnutls_psk_set_client_credentials(cred, peer->plan->identity ? peer->plan->identity : "qemu", &key,
	                                       GNUTLS_PSK_KEY_HEX));
	MUST(gnutls_credentials_set(peer->session, GNUTLS_CRD_PSK, cred));
}

static void use_anon(struct tls_peer *peer)
{
	gnutls_anon_client_credentials_t cred;

	MUST(gnutls_anon_allocate_client_credentials(&cred));
	MUST(gnutls_credentials_set(peer->session, GNUTLS_CRD_ANON, cred));
}

static void note_alert(struct tls_peer *peer, int code)
{
	if (code == GNUTLS_E_FATAL_ALERT_RECEIVED)
		peer->report.alert = (int)gnutls_alert_get(peer->session);
}

static void child_tls(struct tls_peer *peer)
{
	static const char *const priorities[] = {
		[TLS_PEER_X509] = "NORMAL",
		[TLS_PEER_PSK] = "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK",
		[TLS_PEER_ANON] = "NORMAL:+ANON-DH",
	};
	const struct tls_peer_plan *plan = peer->plan;
	char *text;
	int r;

	MUST(gnutls_init(&peer->session, GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT));
	MUST(gnutls_priority_set_direct(peer->session, plan->priority ? plan->priority : priorities[plan->kind], NULL));
	if (plan->kind == TLS_PEER_X509)
		use_x509(peer);
	else if (plan->kind == TLS_PEER_PSK)
		use_psk(peer);
	else
		use_anon(peer);
	gnutls_transport_set_ptr(peer->session, peer);
	gnutls_transport_set_pull_function(peer->session, peer_pull);
	gnutls_transport_set_push_function(peer->session, peer_push);
	gnutls_transport_set_pull_timeout_function(peer->session, peer_pull_timeout);
	do
		r = gnutls_handshake(peer->session);
	while (r < 0 && !gnutls_error_is_fatal(r));
	peer->report.handshake = r;
	note_alert(peer, r);
	if (r < 0) {
		/* As QEMU does, on the way out; it may not arrive. */
		gnutls_alert_send_appropriate(peer->session, r);
		return;
	}
	text = gnutls_session_get_desc(peer->session);
	snprintf(peer->report.session, sizeof(peer->report.session), "%s", text);
	gnutls_free(text);
	if (plan->act)
		plan->act(peer);
}

void tls_peer_start(struct tls_peer *peer, const struct tls_peer_plan *plan, int fd)
{
	int p[2];

	*peer = (struct tls_peer){ .fd = fd, .plan = plan, .report.alert = -1 };
	ASSERT(pipe2(p, O_CLOEXEC) == 0);
	peer->pid = fork();
	ASSERT(peer->pid >= 0);
	if (peer->pid > 0) {
		close(p[1]);
		close(fd);
		peer->report_fd = p[0];
		return;
	}
	alarm(60);
	/* The other end must not be held open here. */
	for (int i = 3; i < high_number(256); i++)
		if (i != fd && i != p[1])
			close(i);
	peer->report_fd = p[1];
	if (plan->kind != TLS_PEER_RAW)
		child_tls(peer);
	else if (plan->act)
		plan->act(peer);
	close(peer->fd);
	child_end(peer);
}

void tls_peer_shake(struct tls_peer *peer, const struct tls_peer_plan *plan, int fd)
{
	*peer = (struct tls_peer){ .fd = fd, .plan = plan, .report.alert = -1, .report_fd = -1 };
	child_tls(peer);
}

void tls_peer_wait(struct tls_peer *peer, struct tls_peer_report *ret_report)
{
	struct tls_peer_report report;
	ssize_t n = read(peer->report_fd, &report, sizeof(report));
	int status;

	close(peer->report_fd);
	ASSERT(waitpid(peer->pid, &status, 0) == peer->pid);
	if (n != sizeof(report) || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "the TLS peer did not end well: status %#x\n", (unsigned)status);
		abort();
	}
	if (ret_report)
		*ret_report = report;
}

/* ---- for acts --------------------------------------------------------------------------------------------------- */

void tls_peer_send(struct tls_peer *peer, const void *buf, size_t bytes)
{
	const char *p = buf;

	while (bytes > 0) {
		ssize_t n = gnutls_record_send(peer->session, p, bytes);

		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			continue;
		MUST((int)n);
		p += n;
		bytes -= (size_t)n;
	}
}

void tls_pattern(void *buf, uint64_t off, size_t bytes)
{
	uint8_t *p = buf;

	for (size_t i = 0; i < bytes; i++, off++)
		p[i] = (uint8_t)(off ^ off >> 8 ^ off >> 16 ^ off >> 24);
}

void tls_peer_send_pattern(struct tls_peer *peer, uint64_t off, size_t bytes)
{
	static const size_t sizes[] = { 1, 16384, 5, 4096, 16383, 333, 8192, 16384, 16384, 2 };
	uint8_t buf[16384];

	for (unsigned i = 0; bytes > 0; i++) {
		size_t n = sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];

		if (n > bytes)
			n = bytes;
		tls_pattern(buf, off, n);
		tls_peer_send(peer, buf, n);
		off += n;
		bytes -= n;
	}
}

void tls_peer_send_raw(struct tls_peer *peer, const void *buf, size_t bytes)
{
	write_fully(peer->fd, buf, bytes);
}

int tls_peer_recv(struct tls_peer *peer, void *buf, size_t bytes)
{
	char *p = buf;

	while (bytes > 0) {
		ssize_t n = gnutls_record_recv(peer->session, p, bytes);

		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			continue;
		note_alert(peer, (int)n);
		if (n <= 0)
			return n < 0 ? (int)n : GNUTLS_E_PREMATURE_TERMINATION;
		p += n;
		bytes -= (size_t)n;
	}
	return 0;
}

void tls_peer_listen(struct tls_peer *peer)
{
	struct pollfd pfd = { peer->fd, POLLIN, 0 };
	char buf[4096];
	ssize_t n;

	if (poll(&pfd, 1, peer->plan->listen_ms ? (int)peer->plan->listen_ms : 300) <= 0)
		return;
	n = recv(peer->fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_PEEK);
	peer->report.bytes_unread = n > 0 ? (size_t)n : 0;
}

void tls_peer_until_closed(struct tls_peer *peer)
{
	char buf[4096];

	if (!peer->session)
		while (recv(peer->fd, buf, sizeof(buf), 0) > 0)
			;
	else
		while (tls_peer_recv(peer, buf, 1) == 0)
			;
}

#else

/* A translation unit is not empty. */
extern const int tls_peer_without_gnutls;
const int tls_peer_without_gnutls;

#endif
