"""Exit status and words of the command line: 0 and standard output for requested text, 2 for errors."""

from program import Case, run


class CommandLine(Case):
    def asked_for(self, *args):
        done = run(*args)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        return done.stdout

    def wrong(self, *args):
        done = run(*args)
        self.assertEqual((done.returncode, done.stdout), (2, ""), done)
        self.assertTrue(done.stderr.endswith("\n"), done.stderr)
        return done.stderr

    def test_help_is_what_was_asked_for(self):
        for args in ["--help"], ["listen", "--help"], ["decode", "--help"]:
            self.assertIn("usage: inmigrate", self.asked_for(*args))
        self.assertRegex(self.asked_for("--version"), r"^inmigrate \d+\.\d+\n$")

    def test_the_tables_of_options_name_each_with_what_becomes_of_it(self):
        caps = self.asked_for("listen", "--cap", "help")
        self.assertRegex(caps, r"(?m)^multifd +works +both")
        self.assertRegex(caps, r"(?m)^x-colo +refused ")
        params = self.asked_for("listen", "--param", "help")
        self.assertRegex(params, r"(?m)^multifd-channels .* 1\.\.255 ")
        self.assertRegex(params, r"(?m)^connect-deadline +works ")

    def test_what_is_missing_or_unknown_is_said(self):
        self.assertIn("usage", self.wrong())
        self.assertIn("nonsense", self.wrong("nonsense"))
        self.assertIn("a URI is missing", self.wrong("listen"))
        self.assertIn("one argument too many", self.wrong("listen", "tcp:127.0.0.1:0", "more"))
        self.assertIn("one FILE is expected", self.wrong("decode"))
        self.assertIn("--nonsense", self.wrong("listen", "tcp:127.0.0.1:0", "--nonsense"))
        self.assertIn("requires an argument", self.wrong("listen", "tcp:127.0.0.1:0", "--cap"))
        self.assertTrue(self.wrong("decode", "x", "--nonsense"))

    def test_values_that_cannot_be_are_said(self):
        for args, said in {
                ("--cap", "nonsense"): "nonsense",
                ("--cap", "x-colo"): "x-colo",
                ("--param", "nonsense=1"): "nonsense",
                ("--param", "multifd-channels"): "KEY=VALUE",
                ("--param", "multifd-channels=0"): "multifd-channels",
                ("--timeout", "0"): "number of seconds",
                ("--timeout", "-1"): "number of seconds",
                ("--timeout", "nan"): "number of seconds",
                ("--timeout", "1x"): "number of seconds",
                ("--progress", "often"): "auto, always or never",
                ("--ram-backing", "paper"): "memfd, thp or hugetlb-2m",
                ("--guest", "linux"): "none is expected",
                ("--reactor", "epoll"): "uring is expected"}.items():
            with self.subTest(args=args):
                self.assertIn(said, self.wrong("listen", "tcp:127.0.0.1:0", *args))
        self.assertIn("needs capability", self.wrong("listen", "tcp:127.0.0.1:0", "--cap", "switchover-ack"))

    def test_an_address_that_cannot_be_is_said(self):
        for uri in "nonsense", "tcp:127.0.0.1", "tcp:127.0.0.1:99999", "fd:x", "file:x,offset=y", "unix:" + "x" * 200:
            with self.subTest(uri=uri):
                self.wrong("listen", uri)

    def test_an_address_that_is_not_there_is_a_failure(self):
        for uri in "unix:/nonexistent/socket", "file:/nonexistent", "fd:999":
            with self.subTest(uri=uri):
                done = run("listen", uri)
                self.assertEqual((done.returncode, done.stdout), (1, ""), done)
                self.assertRegex(done.stderr, r"^inmigrate: .*\n$")
