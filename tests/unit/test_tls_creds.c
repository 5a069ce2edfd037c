/* Files of TLS credentials, names, and the choice of ciphers: engine/channel/tls/tls_creds.h */
#include "engine/channel/tls/tls_creds.h"

#include "base/err.h"
#include "config.h"
#include "engine/options/options.h"
#include "engine/options/options_set.h"
#include "tests/support/check_main.h"
#include "tests/support/tls_peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err err;

static void ck_says(const char *words)
{
	ck_assert_msg(strstr(err.text, words) != NULL, "'%s' is not in: %s", words, err.text);
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

TEST_CASE("pure", 4);

TEST(test_authz_patterns)
{
	static const struct {
		const char *patterns, *dn;
		bool match;
	} cases[] = {
		{ "O=mf,CN=mfsource", "O=mf,CN=mfsource", true },
		{ "O=mf,CN=mfsource", "O=mf,CN=mfsource2", false },
		{ "O=mf,CN=mfsource", "O=mf,CN=mfsourc", false },
		{ "O=mf,CN=mfsource", "CN=mfsource,O=mf", false },
		{ "CN=mfsource", "O=mf,CN=mfsource", false },
		{ "O=mf,CN=*", "O=mf,CN=mfsource", true },
		{ "O=mf,CN=*", "O=mf,CN=", true },
		{ "O=mf,CN=*", "O=mf,CN=mfsource,OU=other", false },
		{ "O=mf,CN=*", "O=mf,CN=mfsource+UID=7", false },
		{ "O=mf,CN=*", "O=mf,CN=a\\,b", true },
		{ "O=mf,CN=*", "O=mf,CN=a\\\\,OU=b", false },
		{ "O=*,CN=mfsource", "O=mf,CN=mfsource", true },
		{ "O=*,CN=mfsource", "O=evil\\,CN=mfsource", false },
		{ "CN=node*.example", "CN=node17.example", true },
		{ "CN=node*.example", "CN=node17.example.org", false },
		{ "CN=*a*b*c", "CN=xxaxxbxbxxcxc", true },
		{ "CN=*a*b*c", "CN=xxaxxbxbxxcxd", false },
		{ "CN=*", "CN=a,CN=b", false },
		{ "*", "CN=a", true },
		{ "*", "O=mf,CN=a", false },
		{ "*,*", "O=mf,CN=a", true },
		{ "CN=one;CN=two", "CN=two", true },
		{ "CN=one;CN=two", "CN=one", true },
		{ "CN=one;CN=two", "CN=one;CN=two", false },
		{ "CN=one;CN=two", "CN=three", false },
		{ "CN=one\\;CN=two", "CN=one\\;CN=two", true },
		{ ";;CN=one;", "CN=one", true },
		{ ";;", "", false },
		{ "", "CN=one", false },
		{ "CN=[a-z]", "CN=b", false },
		{ "CN=?", "CN=b", false },
		{ "CN=one", "", false },
		{ "CN=a*", "CN=a\\", true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		ck_assert_msg(tls_authz_match(cases[i].patterns, cases[i].dn) == cases[i].match, "'%s' and '%s'",
		              cases[i].patterns, cases[i].dn);
}

/* ---- priorities ------------------------------------------------------------------------------------------------- */

TEST(test_priority_prefers_what_the_processor_is_fast_at)
{
	struct tls_options o = { .type = TLS_CREDS_X509 };
	char buf[TLS_PRIORITY_BYTES];

	tls_creds_priority(buf, &o, true);
	ck_assert_ptr_nonnull(strstr(buf, "+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"));
	ck_assert_ptr_nonnull(strstr(buf, "%SERVER_PRECEDENCE"));
	tls_creds_priority(buf, &o, false);
	ck_assert_ptr_nonnull(strstr(buf, "+CHACHA20-POLY1305:+AES-128-GCM"));
	ck_assert_ptr_null(strstr(buf, "PSK"));
}

TEST(test_priority_of_the_user_is_kept_and_gets_the_key_exchange)
{
	struct tls_options o = { .type = TLS_CREDS_PSK, .priority = "SECURE256" };
	char buf[TLS_PRIORITY_BYTES];

	ck_assert_str_eq(tls_creds_priority(buf, &o, true), "SECURE256:+ECDHE-PSK:+DHE-PSK:+PSK");
	o.type = TLS_CREDS_ANON;
	ck_assert_str_eq(tls_creds_priority(buf, &o, true), "SECURE256:+ANON-DH");
	o.type = TLS_CREDS_X509;
	ck_assert_str_eq(tls_creds_priority(buf, &o, true), "SECURE256");
	o.priority = "";
	ck_assert_ptr_null(strstr(tls_creds_priority(buf, &o, true), "ANON"));
}

TEST(test_options_become_tls_options)
{
	struct options opts;
	struct tls_options o;

	options_init(&opts);
	o = tls_options_of(&opts);
	ck_assert_int_eq(o.type, TLS_CREDS_X509);
	ck_assert(o.verify_peer);
	memset(&opts, 1, sizeof(opts)); /* whatever a parameter sets */
	opts.tls_creds_type = TLS_CREDS_PSK;
	strcpy(opts.tls_creds_dir, "d");
	strcpy(opts.tls_authz, "a");
	strcpy(opts.tls_priority, "p");
	o = tls_options_of(&opts);
	ck_assert_int_eq(o.type, TLS_CREDS_PSK);
	ck_assert_str_eq(o.dir, "d");
	ck_assert_str_eq(o.authz, "a");
	ck_assert_str_eq(o.priority, "p");
}

#if HAVE_GNUTLS

/* ---- files ------------------------------------------------------------------------------------------------------ */

static char dir[64];
static struct tls_cert ca;
static struct tls_options x509, psk, anon;

static void setup(void)
{
	tls_dir_make(dir, &ca);
	x509 = (struct tls_options){ .type = TLS_CREDS_X509, .dir = dir, .verify_peer = true };
	psk = (struct tls_options){ .type = TLS_CREDS_PSK, .dir = dir };
	anon = (struct tls_options){ .type = TLS_CREDS_ANON };
	err = ERR_NONE;
}

static void teardown(void)
{
	tls_cert_free(&ca);
	tls_dir_remove(dir);
}

static int load(const struct tls_options *o)
{
	struct tls_creds *creds = NULL;
	int r = tls_creds_load(&creds, o, &err);

	ck_assert_int_eq(r == 0, creds != NULL);
	if (r < 0)
		ck_assert_int_eq(err.code, r);
	tls_creds_free(creds);
	return r;
}

static void ck_loads(const struct tls_options *o)
{
	ck_assert_msg(load(o) == 0, "%s", err.text);
}

static void ck_refuses(const struct tls_options *o, int code, const char *file, const char *why)
{
	int r = load(o);

	ck_assert_msg(r == code, "%d instead of %d: %s", r, code, err.text);
	if (file)
		ck_says(file);
	ck_says(why);
}

static void drop(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(unlink(path), 0);
}

/* A server certificate made after @plan, with its key, in place of the good one. */
static void put_server(struct tls_cert_plan plan)
{
	struct tls_cert cert;

	if (!plan.name)
		plan.name = "CN=localhost";
	tls_cert_make(&cert, &plan, &ca);
	tls_cert_save(&cert, dir, "server-cert.pem", "server-key.pem");
	tls_cert_free(&cert);
}

static void put_ca(struct tls_cert_plan plan)
{
	struct tls_cert cert;

	plan.name = "CN=another ca";
	tls_cert_make(&cert, &plan, NULL);
	tls_cert_save(&cert, dir, "ca-cert.pem", NULL);
	tls_cert_free(&cert);
}

TEST_CASE("files", 20, .checked = { setup, teardown });

TEST(test_creds_of_each_type_load)
{
	ck_loads(&x509);
	ck_loads(&psk);
	ck_loads(&anon);
	anon.dir = dir;
	ck_loads(&anon);
	tls_creds_free(NULL);
}

TEST(test_creds_missing_files_are_named)
{
	static const char *const names[] = { "ca-cert.pem", "server-cert.pem", "server-key.pem" };

	for (size_t i = 0; i < 3; i++) {
		teardown();
		setup();
		drop(names[i]);
		ck_refuses(&x509, -ENOENT, names[i], "No such file");
	}
	drop("keys.psk");
	ck_refuses(&psk, -ENOENT, "keys.psk", "No such file");
	psk.dir = "/nonexistent/place";
	ck_refuses(&psk, -ENOENT, "/nonexistent/place/keys.psk", "No such file");
}

TEST(test_creds_what_is_no_file_is_not_read)
{
	char path[512];

	drop("keys.psk");
	snprintf(path, sizeof(path), "%s/keys.psk", dir);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_refuses(&psk, -EINVAL, "keys.psk", "is not a file"); /* and does not wait for a writer */
	drop("keys.psk");
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_refuses(&psk, -EINVAL, "keys.psk", "is not a file");
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(symlink(path, path), 0);
	ck_refuses(&psk, -ELOOP, "keys.psk", "symbolic links");
}

TEST(test_creds_unreadable_file_is_named)
{
	if (geteuid() == 0)
		ck_assert_int_eq(seteuid(65534), 0); /* root may read everything; the folder is root's */
	else
		ck_assert_int_eq(chmod(dir, 0), 0);
	ck_refuses(&psk, -EACCES, dir, "Permission denied");
	ck_assert_int_eq(seteuid(getuid()), 0);
	ck_assert_int_eq(chmod(dir, 0700), 0);
}

TEST(test_creds_garbage_and_empty_files_are_named)
{
	static const char *const names[] = { "ca-cert.pem", "server-cert.pem", "server-key.pem" };

	for (size_t i = 0; i < 3; i++) {
		teardown();
		setup();
		tls_file_save(dir, names[i], "this is no PEM\n");
		ck_refuses(&x509, -EINVAL, names[i], "PEM");
		tls_file_save(dir, names[i], "");
		ck_refuses(&x509, -EINVAL, names[i], "is empty");
		tls_file_save(dir, names[i], "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
		ck_refuses(&x509, -EINVAL, names[i], ": ");
	}
	teardown();
	setup();
	tls_file_save(dir, "ca-crl.pem", "nor this\n");
	ck_refuses(&x509, -EINVAL, "ca-crl.pem", ": ");
	tls_file_save(dir, "dh-params.pem", "nor this\n");
	ck_refuses(&anon, 0, NULL, ""); /* no dir */
	ck_refuses(&psk, -EINVAL, "dh-params.pem", ": ");
}

TEST(test_creds_key_of_another_certificate)
{
	const struct tls_cert_plan plan = { .name = "CN=localhost" };
	struct tls_cert other;

	tls_cert_make(&other, &plan, &ca);
	tls_cert_save(&other, dir, NULL, "server-key.pem");
	tls_cert_free(&other);
	ck_refuses(&x509, -EINVAL, "server-key.pem", "does not belong to the certificate in server-cert.pem");
}

TEST(test_creds_key_with_a_password)
{
	struct tls_cert cert;
	char text[4096];
	size_t bytes = sizeof(text);

	tls_cert_make(&cert, &(struct tls_cert_plan){ .name = "CN=localhost" }, &ca);
	ck_assert_int_eq(gnutls_x509_privkey_export_pkcs8(cert.key, GNUTLS_X509_FMT_PEM, "geheim",
	                                                  GNUTLS_PKCS_PBES2_AES_128, text, &bytes),
	                 0);
	text[bytes] = '\0';
	tls_cert_save(&cert, dir, "server-cert.pem", NULL);
	tls_cert_free(&cert);
	tls_file_save(dir, "server-key.pem", text);
	ck_refuses(&x509, -EINVAL, "server-key.pem", "protected by a password");
}

TEST(test_creds_server_certificate_out_of_its_dates)
{
	put_server((struct tls_cert_plan){ .from_s = -7200, .to_s = -3600 });
	ck_refuses(&x509, -EINVAL, "server-cert.pem", "has expired, on 20");
	put_server((struct tls_cert_plan){ .from_s = 3600, .to_s = 7200 });
	ck_refuses(&x509, -EINVAL, "server-cert.pem", "valid only from 20");
}

TEST(test_creds_server_certificate_for_other_uses)
{
	put_server((struct tls_cert_plan){ .usage = GNUTLS_KEY_KEY_AGREEMENT });
	ck_refuses(&x509, -EINVAL, "server-cert.pem", "key usage");
	put_server((struct tls_cert_plan){ .purpose = GNUTLS_KP_TLS_WWW_CLIENT });
	ck_refuses(&x509, -EINVAL, "server-cert.pem", "key purpose");
	put_server((struct tls_cert_plan){ .purpose = GNUTLS_KP_ANY });
	ck_loads(&x509);
	put_server((struct tls_cert_plan){ .name = "CN=says nothing" });
	ck_loads(&x509);
}

TEST(test_creds_ca_that_is_none)
{
	put_ca((struct tls_cert_plan){ .ca = false });
	ck_refuses(&x509, -EINVAL, "ca-cert.pem", "is not one of a CA");
	put_ca((struct tls_cert_plan){ .no_constraints = true });
	ck_refuses(&x509, -EINVAL, "ca-cert.pem", "is not one of a CA");
	put_ca((struct tls_cert_plan){ .ca = true, .usage = GNUTLS_KEY_DIGITAL_SIGNATURE });
	ck_refuses(&x509, -EINVAL, "ca-cert.pem", "key usage");
	put_ca((struct tls_cert_plan){ .ca = true, .from_s = -7200, .to_s = -3600 });
	ck_refuses(&x509, -EINVAL, "ca-cert.pem", "has expired");
	put_ca((struct tls_cert_plan){ .ca = true, .from_s = 3600, .to_s = 7200 });
	ck_refuses(&x509, -EINVAL, "ca-cert.pem", "valid only from");
}

TEST(test_creds_server_certificate_of_another_ca)
{
	put_ca((struct tls_cert_plan){ .ca = true });
	ck_refuses(&x509, -EINVAL, "server-cert.pem", "is not signed by the CA in ca-cert.pem");
}

TEST(test_creds_revocation_list_out_of_date)
{
	tls_crl_save(&ca, &ca, dir, 3600);
	ck_loads(&x509);
	tls_crl_save(&ca, &ca, dir, -60);
	ck_refuses(&x509, -EINVAL, "ca-crl.pem", "out of date since 20");
}

TEST(test_creds_further_identities_are_checked_too)
{
	struct tls_cert cert;

	tls_cert_make(&cert, &(struct tls_cert_plan){ .name = "CN=further", .rsa_bits = 2048 }, &ca);
	tls_cert_save(&cert, dir, "server-cert-1.pem", NULL);
	ck_refuses(&x509, -ENOENT, "server-key-1.pem", "No such file");
	tls_cert_save(&cert, dir, NULL, "server-key-1.pem");
	ck_loads(&x509);
	tls_cert_free(&cert);
}

TEST(test_creds_key_lines)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "qemu:" TLS_PEER_PSK_KEY "\n", NULL },
		{ "qemu:" TLS_PEER_PSK_KEY, NULL },
		{ "one:0011\r\n\r\n\ntwo:AAbb\n", NULL },
		{ "#71656d75:0011\n", NULL },
		{ "\n\n", "there is no key in it" },
		{ "one:0011\nqemu\n", "line 2 is not of the form identity:hexkey" },
		{ "one:0011\n:0011\n", "line 2" },
		{ "qemu:\n", "line 1" },
		{ "qemu:001\n", "line 1" },
		{ "qemu:00zz\n", "line 1" },
		{ "qemu: 0011\n", "line 1" },
		{ "#7:0011\n", "line 1" },
		{ "#:0011\n", "line 1" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		tls_file_save(dir, "keys.psk", cases[i].text);
		if (cases[i].says)
			ck_refuses(&psk, -EINVAL, "keys.psk", cases[i].says);
		else
			ck_loads(&psk);
	}
}

/* Whatever is wrong with a file of secrets, no part of them gets into the text. */
TEST(test_creds_errors_tell_no_secret)
{
	static const char secret[] = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e7";
	static const char *const forms[] = { "qemu:%sx\n", "%s\n", ":%s\n", "#%sx:%s\n", "qemu %s\n", "qemu:%s:0\n" };
	char text[512];

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		/* one length of argument list serves all forms */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(text, sizeof(text), forms[i], secret, secret);
#pragma GCC diagnostic pop
		tls_file_save(dir, "keys.psk", text);
		ck_assert_int_lt(load(&psk), 0);
		ck_assert_msg(!strstr(err.text, "5ec2e7"), "%s", err.text);
		snprintf(text, sizeof(text), "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n", secret);
		tls_file_save(dir, "server-key.pem", text);
		ck_assert_int_lt(load(&x509), 0);
		ck_assert_msg(!strstr(err.text, "5ec2e7"), "%s", err.text);
	}
}

TEST(test_creds_wrong_priority_says_where)
{
	psk.priority = "NORMAL:+NONSENSE";
	ck_refuses(&psk, -EINVAL, NULL, "is not understood from '");
	ck_says("NONSENSE");
}

/* Run scripts/make-certs with @options for a folder @name below dir. */
static void make_certs(const char *options, const char *name)
{
	const char *src = getenv("TEST_SRCDIR");
	char command[1024];

	if (!src)
		test_skip("TEST_SRCDIR is not set");
	if (system("command -v openssl >/dev/null") != 0)
		test_skip("openssl is not installed");
	snprintf(command, sizeof(command), "'%s/scripts/make-certs' %s '%s/%s'", src, options, dir, name);
	ck_assert_int_eq(system(command), 0);
}

static void remove_certs(const char *name)
{
	static const char *const parts[] = { "ca", "server", "client", "." };
	char path[512];

	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s/%s", dir, name, parts[i]);
		tls_dir_remove(path);
	}
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(rmdir(path), 0);
}

TEST(test_creds_of_make_certs_load)
{
	char path[512];

	make_certs("--server host.example --server 192.0.2.7", "made");
	snprintf(path, sizeof(path), "%s/made/server", dir);
	x509.dir = psk.dir = path;
	ck_loads(&x509);
	ck_loads(&psk);
	make_certs("--expired", "made");
	ck_refuses(&x509, -EINVAL, "server-cert.pem", "has expired");
	make_certs("--from-tomorrow", "made");
	ck_refuses(&x509, -EINVAL, "server-cert.pem", "valid only from");
	make_certs("--expired --only-client --rsa", "made");
	ck_loads(&x509);
	remove_certs("made");
}

TEST(test_creds_what_would_be_in_vain_is_refused)
{
	psk.authz = "CN=*";
	ck_refuses(&psk, -EINVAL, NULL, "only with x509");
	x509.authz = "CN=*";
	ck_loads(&x509);
	x509.verify_peer = false;
	ck_refuses(&x509, -EINVAL, NULL, "verified peers");
	x509.authz = NULL;
	x509.dir = "";
	ck_refuses(&x509, -EINVAL, NULL, "need a directory");
}

#else

TEST(test_creds_without_gnutls_are_refused)
{
	struct tls_options o = { .type = TLS_CREDS_ANON };
	struct tls_creds *creds;

	ck_assert_int_eq(tls_creds_load(&creds, &o, &err), -ENOTSUP);
	ck_says("without GnuTLS");
	tls_creds_free(NULL);
}

#endif
