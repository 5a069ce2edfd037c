"""`make install`: GNU's variables for folders work on its command line, and the installed tree can be moved."""

import fcntl
import glob
import os
import shlex
import shutil
import subprocess

from program import PROGRAM, Case

SRC = os.path.abspath(os.environ.get("TEST_SRCDIR", "."))
OUT = os.path.dirname(os.path.abspath(PROGRAM))
# In the source folder everything is built below build/, and the Makefile is above it.
FOLDER = SRC if OUT == os.path.join(SRC, "build") else OUT

CONSUMER = """
#include <inmigrate.h>
#include <stdio.h>
int main(void) { puts(inm_version()); return 0; }
"""


def config():
    """{name: value}, as configure has written them."""
    with open(os.path.join(OUT, "config.mk"), encoding="utf-8") as f:
        pairs = (line.split("=", 1) for line in f if "=" in line)
        return {name.strip(): value.strip() for name, value in pairs}


class Install(Case):
    def setUp(self):
        super().setUp()
        self.config = config()

    def make(self, target, *variables):
        # This make is not part of the one that runs the tests.
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DESTDIR")}
        with open(os.path.join(OUT, "config.mk"), encoding="utf-8") as lock:
            # Each install writes the .pc file in the build folder again, so these tests wait for each other.
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = subprocess.run(["make", "-C", FOLDER, target, *variables], env=env, capture_output=True, timeout=300,
                                  check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))

    def files(self, top):
        return sorted(os.path.relpath(os.path.join(folder, name), top)
                      for folder, _, names in os.walk(top) for name in names)

    def expected(self, **folders):
        """Where each file must be, relative to the test's folder."""
        version, so = self.config["VERSION"], self.config["SOVERSION"]
        at = {"bindir": "bin", "libdir": "lib", "includedir": "include", "mandir": "share/man", **folders}
        names = [at["bindir"] + "/inmigrate", at["includedir"] + "/inmigrate.h"]
        names += [at["libdir"] + "/" + name for name in ("libinmigrate.a", "libinmigrate.so", f"libinmigrate.so.{so}",
                                                         f"libinmigrate.so.{version}", "pkgconfig/inmigrate.pc")]
        names += [f"{at['mandir']}/man{page[-1]}/{page}" for page in os.listdir(os.path.join(SRC, "man"))]
        return sorted(names)

    def installed(self, top, *variables, **folders):
        """make install puts everything below @top where it should be, and make uninstall takes all of it away."""
        self.make("install", *variables)
        self.assertEqual(self.files(top), self.expected(**folders))
        self.make("uninstall", *variables)
        self.assertEqual(self.files(top), [])

    def pkg_config(self, libdir, *args, env=None):
        done = subprocess.run([self.config.get("PKG_CONFIG", "pkg-config"), *args, "inmigrate"], capture_output=True,
                              check=False, timeout=30,
                              env={**os.environ, "PKG_CONFIG_PATH": os.path.join(libdir, "pkgconfig"), **(env or {})})
        self.assertEqual(done.returncode, 0, done.stderr)
        return shlex.split(done.stdout.decode())

    def says(self, libdir, cflags, libs, *args):
        """pkg-config answers with these folders, however it writes them."""
        said = [word[:2] + os.path.realpath(word[2:]) if word[:2] in ("-I", "-L") else word
                for word in self.pkg_config(libdir, "--cflags", "--libs", *args)]
        # The libraries that it needs may be in folders of their own.
        said = [word for word in said if "p11-kit" not in word]
        self.assertEqual(said, ["-I" + os.path.realpath(cflags), "-L" + os.path.realpath(libs), "-linmigrate"])

    def test_prefix_on_the_command_line_moves_everything(self):
        self.installed(self.folder, f"prefix={self.folder}")

    def test_each_folder_can_be_moved_on_its_own(self):
        for name in ("bindir", "libdir", "includedir", "mandir"):
            with self.subTest(name):
                self.installed(self.folder, f"prefix={self.folder}", f"{name}={self.folder}/else/where", **{name: "else/where"})

    def test_exec_prefix_moves_what_depends_on_the_machine(self):
        self.installed(self.folder, f"prefix={self.folder}", f"exec_prefix={self.folder}/x", bindir="x/bin", libdir="x/lib")

    def test_datarootdir_moves_the_manual(self):
        self.installed(self.folder, f"prefix={self.folder}", f"datarootdir={self.folder}/data", mandir="data/man")

    def test_destdir_comes_before_the_folders_and_is_not_in_the_files(self):
        self.installed(os.path.join(self.folder, "opt/x"), f"DESTDIR={self.folder}", "prefix=/opt/x")
        self.make("install", f"DESTDIR={self.folder}", "prefix=/opt/x", "libdir=/opt/lib64")
        with open(os.path.join(self.folder, "opt/lib64/pkgconfig/inmigrate.pc"), encoding="utf-8") as f:
            text = f.read()
        self.assertNotIn(self.folder, text)
        self.assertIn("prefix=/opt/x\n", text)
        self.assertIn("libdir=/opt/lib64\n", text)
        self.assertIn("includedir=${prefix}/include\n", text)

    def test_pkg_config_names_what_was_installed(self):
        self.make("install", f"prefix={self.folder}")
        self.says(self.folder + "/lib", self.folder + "/include", self.folder + "/lib")

    def test_pkg_config_goes_by_a_prefix_that_it_is_told(self):
        self.make("install", f"prefix={self.folder}")
        self.says(self.folder + "/lib", "/else/where/include", "/else/where/lib", "--define-variable=prefix=/else/where")

    def test_pkg_config_names_folders_that_are_not_below_the_prefix(self):
        self.make("install", f"prefix={self.folder}/a", f"libdir={self.folder}/b/c", f"includedir={self.folder}/d")
        self.says(self.folder + "/b/c", self.folder + "/d", self.folder + "/b/c")

    def test_a_tree_that_was_moved_is_found_where_it_is(self):
        for libdir in ("lib", "lib/x86_64-linux-gnu", "lib64"):
            with self.subTest(libdir):
                old, new = os.path.join(self.folder, "old"), os.path.join(self.folder, "new")
                self.make("install", f"prefix={old}", f"libdir={old}/{libdir}")
                os.rename(old, new)
                self.says(f"{new}/{libdir}", new + "/include", f"{new}/{libdir}")
                shutil.rmtree(new)

    def test_below_usr_the_compiler_is_not_told_of_its_own_folder(self):
        self.make("install", f"DESTDIR={self.folder}", "prefix=/usr")
        said = self.pkg_config(self.folder + "/usr/lib", "--cflags", env={"PKG_CONFIG_SYSTEM_INCLUDE_PATH": "/usr/include"})
        self.assertNotIn("-I/usr/include", said)
        self.assertNotIn(self.folder, " ".join(said))

    def test_the_examples_are_built_as_they_say(self):
        if self.config["SANITIZE"]:
            self.skipTest("a library with a sanitizer needs a program with it")
        self.make("install", f"prefix={self.folder}")
        for source in glob.glob(os.path.join(SRC, "examples", "*.c")):
            done = subprocess.run([*self.config["CC"].split(), "-Wall", "-Wextra", "-Werror", source, "-o",
                                   os.path.join(self.folder, "x"),
                                   *self.pkg_config(self.folder + "/lib", "--cflags", "--libs")],
                                  capture_output=True, check=False, timeout=60, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_program_is_built_and_runs_with_a_tree_that_was_moved(self):
        if self.config["SANITIZE"]:
            self.skipTest("a library with a sanitizer needs a program with it")
        old, new = os.path.join(self.folder, "old"), os.path.join(self.folder, "new")
        source, program = os.path.join(self.folder, "x.c"), os.path.join(self.folder, "x")
        self.make("install", f"prefix={old}")
        os.rename(old, new)
        with open(source, "w", encoding="utf-8") as f:
            f.write(CONSUMER)
        subprocess.run([*self.config["CC"].split(), source, "-o", program,
                        *self.pkg_config(new + "/lib", "--cflags", "--libs")], check=True, timeout=60)
        done = subprocess.run([program], env={**os.environ, "LD_LIBRARY_PATH": new + "/lib"}, capture_output=True,
                              check=True, timeout=30)
        self.assertEqual(done.stdout.decode().strip(), self.config["VERSION"])
