"""scripts/get-qemu: which files it leaves, and what it says, with an apt and a dpkg that only pretend"""

import os
import subprocess
import tempfile
import textwrap
import unittest

SCRIPT = os.path.join(os.environ.get("TEST_SRCDIR") or os.path.join(os.path.dirname(__file__), "..", ".."),
                      "scripts", "get-qemu")
DEBIAN_12 = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'

# Notes its arguments, and the sources that it should read. $FAILS: its error for a download.
APT_GET = r"""
    echo "$*" >>"$NOTES/calls"
    case $* in
    *indextargets*) printf '%s\n' "$SITES" ;;
    *download*)
        [ -z "${FAILS-}" ] || { echo "E: $FAILS"; exit 100; }
        conf=$3
        cat "$(sed -n 's/^Dir::Etc::SourceParts "\(.*\)";/\1/p' "$conf")"/* >"$NOTES/source"
        touch qemu.deb ;;
    esac
"""
DPKG = r"""
    case $1 in
    --print-architecture) echo amd64 ;;
    -x) mkdir -p "$3/usr/bin"
        printf '#!/bin/sh\necho "QEMU emulator version 10.0.2"\n'"$MORE" >"$3/usr/bin/qemu-system-x86_64"
        chmod 755 "$3/usr/bin/qemu-system-x86_64" ;;
    esac
"""
DEB822 = """\
Types: deb
URIs: http://other.example/debian
Suites: bookworm-security
Components: main

# A comment.
Enabled: yes
Types: deb deb-src
URIs:
 http://mirror.example/debian/
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /keys/one.gpg
"""
ONE_LINE = """\
# deb http://mirror.example/debian bookworm main
deb [signed-by=/keys/one.gpg arch=amd64] http://mirror.example/debian/ bookworm main contrib
"""


def run(*argv, **env):
    done = subprocess.run(argv, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


class GetQemu(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="get-qemu.")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.qemu = os.path.join(self.folder, "qemu")
        os.mkdir(os.path.join(self.folder, "bin"))
        self.tool("apt-get", APT_GET)
        self.tool("dpkg", DPKG)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def read(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def tool(self, name, text):
        path = self.write("bin/" + name, "#!/bin/sh\n" + textwrap.dedent(text))
        os.chmod(path, 0o755)
        if not os.access(path, os.X_OK):
            self.skipTest("nothing below TMPDIR can be executed")

    def get(self, sources=ONE_LINE, name="sources.list", distribution=DEBIAN_12, **more):
        sites = f"http://mirror.example/debian bookworm {self.write(name, sources)}:1"
        return run(SCRIPT, self.qemu, self.write("os-release", distribution), **{
            "PATH": self.path("bin") + ":" + os.environ["PATH"], "NOTES": self.folder, "SITES": sites, "MORE": "",
            **more})

    def check_got(self, done):
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        self.assertEqual(done.stdout, f"QEMU emulator version 10.0.2, in {self.qemu}\n")
        self.assertFalse(os.path.exists(self.qemu + ".part"))

    def check_not(self, done, why):
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (1, "", f"get-qemu: no newer QEMU: {why}\n"))
        self.assertFalse(os.path.exists(self.qemu))
        self.assertFalse(os.path.exists(self.qemu + ".part"))

    def test_the_entry_of_a_stanza_is_kept_but_for_its_suite(self):
        self.check_got(self.get(DEB822, "debian.sources"))
        self.assertEqual(self.read("source"), "Types: deb\nURIs: http://mirror.example/debian\n"
                         "Suites: bookworm-backports\nComponents: main\nSigned-By: /keys/one.gpg\n")

    def test_the_entry_of_a_line_is_kept_but_for_its_suite(self):
        self.check_got(self.get())
        self.assertEqual(self.read("source"), "deb [signed-by=/keys/one.gpg arch=amd64] http://mirror.example/debian "
                         "bookworm-backports main\n")

    def test_what_is_there_is_not_downloaded_again(self):
        self.check_got(self.get())
        os.unlink(self.path("calls"))
        self.check_got(self.get())
        self.assertFalse(os.path.exists(self.path("calls")))

    def test_half_of_an_earlier_try_is_replaced(self):
        self.write("qemu/qemu-system-x86_64", "half of a program")
        self.write("qemu.part/apt/lists/old", "")
        self.check_got(self.get())
        self.assertEqual(sorted(os.listdir(self.qemu)), ["qemu-system-x86_64", "usr"])

    def test_it_may_be_moved(self):
        self.check_got(self.get())
        os.rename(self.qemu, self.path("moved"))
        done = run(self.path("moved/qemu-system-x86_64"), "--version")
        self.assertEqual(done.stdout, "QEMU emulator version 10.0.2\n", done)

    def test_modules_and_firmware_are_its_own(self):
        self.assertEqual(self.get(MORE='echo "$QEMU_MODULE_DIR $*"\n').returncode, 0)
        done = run(self.path("qemu/qemu-system-x86_64"), "-x", "a b")
        usr = os.path.realpath(self.qemu) + "/usr"
        self.assertEqual(done.stdout.splitlines()[1:], [
            f"{usr}/lib/x86_64-linux-gnu/qemu -L {usr}/share/qemu -L {usr}/share/seabios -L /usr/lib/ipxe/qemu -x a b"])

    def test_without_a_network_there_is_one_line(self):
        self.check_not(self.get(FAILS="Could not resolve the name"), "Could not resolve the name")

    def test_an_entry_that_is_not_there_is_said(self):
        self.check_not(self.get("deb http://mirror.example/debian sid main\n"),
                       f"{self.path('sources.list')} has no entry for http://mirror.example/debian bookworm")

    def test_what_does_not_run_is_not_left(self):
        self.tool("dpkg", DPKG.replace("echo \"QEMU", "echo no library; exit 127; echo \"QEMU"))
        self.check_not(self.get(), "what was unpacked does not run: no library")

    def test_another_distribution_is_said(self):
        self.check_not(self.get(distribution='ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n'),
                       "it is known where Debian 12 has one, and this is ubuntu 24.04 noble")

    def test_another_architecture_is_said(self):
        self.tool("dpkg", "echo arm64")
        self.check_not(self.get(), "it is known where amd64 has one, and this is arm64")

    def test_nothing_of_the_systems_apt_is_written(self):
        self.check_got(self.get())
        calls = [c for c in self.read("calls").splitlines() if "indextargets" not in c]
        self.assertEqual(len(calls), 2, calls)
        for call in calls:
            self.assertIn(f"-c {self.qemu}.part/apt/conf", call)

    def test_usage(self):
        self.assertEqual(run(SCRIPT).returncode, 2)
        done = run(SCRIPT, "--help")
        self.assertEqual((done.returncode, done.stdout[:7]), (0, "usage: "))
