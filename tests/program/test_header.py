"""The header alone compiles, without a warning, in every language and with every compiler that an embedder may use."""

import os
import re
import shutil
import subprocess

from program import Case

SRC = os.path.abspath(os.environ.get("TEST_SRCDIR", "."))
INCLUDE = os.path.join(SRC, "include")
C = ("c99", "c11", "c2x")
CPP = ("c++11", "c++20")

# Twice, to test the guard. Then it uses each macro and type as an embedder would.
SOURCE = """
#include <inmigrate.h>
#include <inmigrate.h>
static int ram_block(void *opaque, struct inm_ram_block *block) { (void)opaque; (void)block; return 0; }
int use(struct inm **inm, struct inm_stats *st);
int use(struct inm **inm, struct inm_stats *st)
{
	static struct inm_ops ops;
	static struct inm_config config;
	int numbers[INM_LATENCY_BUCKETS + INM_VERSION_MAJOR + INM_VERSION_MINOR];
	ops.size = sizeof(ops);
	ops.ram_block = ram_block;
	config.size = sizeof(config);
	config.log_level = INM_LOG_INFO;
	numbers[0] = inm_new(inm, &config, &ops, NULL);
	st->size = sizeof(*st);
	return numbers[0] + inm_get_stats(*inm, st) + (inm_get_state(*inm) == INM_STATE_NONE);
}
"""


class Header(Case):
    def compiles(self, compiler, language, standards):
        if not shutil.which(compiler):
            self.skipTest(f"no {compiler}")
        for standard in standards:
            with self.subTest(f"{compiler} -std={standard}"):
                done = subprocess.run([compiler, "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic",
                                       "-Werror", "-fsyntax-only", "-I" + INCLUDE, "-"],
                                      input=SOURCE.encode(), capture_output=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))

    def test_gcc_takes_it_as_c99_c11_and_c23(self):
        self.compiles("gcc", "c", C)

    def test_clang_takes_it_as_c99_c11_and_c23(self):
        self.compiles("clang", "c", C)

    def test_gcc_takes_it_as_cpp11_and_cpp20(self):
        self.compiles("g++", "c++", CPP)

    def test_clang_takes_it_as_cpp11_and_cpp20(self):
        self.compiles("clang++", "c++", CPP)

    def test_it_needs_no_extension_of_the_c_library(self):
        # -std=c99 declares no POSIX names; and the header must include only C's own headers, not the system's.
        with open(os.path.join(INCLUDE, "inmigrate.h"), encoding="utf-8") as f:
            included = re.findall(r"#include <([^>]+)>", f.read())
        self.assertTrue(included)
        self.assertLessEqual(set(included), {"stdarg.h", "stdbool.h", "stddef.h", "stdint.h"})

    def test_the_table_of_threads_in_the_manual_has_every_call(self):
        with open(os.path.join(INCLUDE, "inmigrate.h"), encoding="utf-8") as f:
            text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
        with open(os.path.join(SRC, "man", "inmigrate.3"), encoding="utf-8") as f:
            rows = re.findall(r"^\.It Fn (inm_\w+) Ta ", f.read(), flags=re.M)
        self.assertEqual(sorted(rows), sorted(set(re.findall(r"\b(inm_\w+)\(", text))))
