# inmigrate - the library, the program, and, from tests/tests.mk, the tests; `make help` lists the targets
#
# Sources are found by folder (FLOORS, bottom first), so a new file needs no edit here. Output goes below $(B): build/ in
# the source folder, nothing in a folder of its own, where the Makefile made by configure sets srcdir and includes this.

MAKEFLAGS += -rR --no-print-directory
.DELETE_ON_ERROR:
.SUFFIXES:

ifeq ($(origin srcdir),undefined)
srcdir := .
B := build/
endif

all:

-include $(B)config.mk

# Missing or older than configure: make writes it and starts over.
$(B)config.mk: $(srcdir)/configure
ifdef CONFIGURE
	$(CONFIGURE) $(CONFIGURE_ARGS)
else
	cd $(srcdir) && ./configure
endif

V ?= 0
ifeq ($(V),0)
say = @printf '  %-7s %s\n' '$(1)' '$(2)';
else
say =
endif

# Names relative to the source folder: $(call find,base/*.c)
find = $(sort $(patsubst $(srcdir)/%,%,$(wildcard $(addprefix $(srcdir)/,$(1)))))
objects = $(addprefix $(B),$(addsuffix .o,$(basename $(1))))
programs = $(addprefix $(B),$(basename $(1)))

# A list that is rewritten only when it changes: an archive depends on the list of its objects, not only on them.
FORCE:
define list
$(1).list: FORCE
	@mkdir -p $$(@D)
	@echo '$(2)' | cmp -s - $$@ || echo '$(2)' >$$@
endef

SRC := $(abspath $(srcdir))
OUT := $(abspath $(or $(B),.))

# ---- what there is ------------------------------------------------------------------------------------------------

# The uppermost folders: below them FLOORS has a line for each folder.
FLOORS := $(sort $(shell cut -d/ -f1 $(srcdir)/FLOORS))
LIB_FLOORS := $(filter-out programs,$(FLOORS))

LIB_SRC := $(call find,$(foreach f,$(LIB_FLOORS),$(f)/*.c $(f)/*/*.c $(f)/*/*/*.c))
LIB_SRC := $(filter-out coroutine/switch_%,$(LIB_SRC)) $(call find,$(SWITCH))
PROGRAM_SRC := $(call find,programs/*.c programs/*/*.c)
EXAMPLE_SRC := $(call find,examples/*.c)

LIB_OBJ := $(call objects,$(LIB_SRC))
PROGRAM_OBJ := $(call objects,$(PROGRAM_SRC))
EXAMPLES := $(call programs,$(EXAMPLE_SRC))

LIB_A := $(B)libinmigrate.a
LIB_SO := $(B)libinmigrate.so.$(VERSION)
LIB_SO_LINKS := $(B)libinmigrate.so.$(SOVERSION) $(B)libinmigrate.so
PROGRAM := $(if $(PROGRAM_SRC),$(B)inmigrate)

all: $(LIB_A) $(LIB_SO) $(LIB_SO_LINKS) $(PROGRAM)

# What tests what all this makes, and how; nothing here needs it.
-include $(srcdir)/tests/tests.mk
ALL_SRC := $(LIB_SRC) $(PROGRAM_SRC) $(EXAMPLE_SRC) $(TEST_SRC)

# ---- how it is made -----------------------------------------------------------------------------------------------

# $(B) comes first: the config.h of this build, whatever lies in the source folder.
INCLUDES := -I$(or $(B),.) -I$(srcdir) -I$(srcdir)/include
COMPILE = $(CC) -std=gnu11 -D_GNU_SOURCE $(INCLUDES) $(CPPFLAGS) $(WARNINGS) -fPIC -fvisibility=hidden -pthread \
	-fmacro-prefix-map=$(srcdir)/= $(DEP_CFLAGS) $(CFLAGS) $(SANITIZE)
LINK = $(CC) $(CFLAGS) $(SANITIZE) -pthread -Wl,--as-needed $(LDFLAGS)

# A list before the pattern: without one, a pattern with no slash would match only the last part of a name.
$(call objects,$(filter %.c,$(ALL_SRC))): $(B)%.o: $(srcdir)/%.c $(B)config.flags
	@mkdir -p $(@D)
	$(call say,CC,$*.c)$(COMPILE) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

$(call objects,$(filter %.S,$(ALL_SRC))): $(B)%.o: $(srcdir)/%.S $(B)config.flags
	@mkdir -p $(@D)
	$(call say,AS,$*.S)$(COMPILE) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

$(PROGRAM_OBJ): COMPILE += $(PROGRAM_CFLAGS)

$(B)config.flags: $(B)config.mk ;

$(eval $(call list,$(B)lib,$(LIB_OBJ)))

# For our own program and tests: every symbol visible to the linker.
$(B)libinternal.a: $(LIB_OBJ) $(B)lib.list
	$(call say,AR,libinternal.a)rm -f $@ && $(AR) rcs $@ $(LIB_OBJ)

# For embedders: one object in which the hidden symbols are local. In a plain archive an embedder's function that has
# the name of one of ours would silently replace it.
$(B)inmigrate.o: $(LIB_OBJ) $(B)lib.list
	$(call say,LD,inmigrate.o)$(LD) -r -o $@ $(LIB_OBJ) && $(OBJCOPY) --localize-hidden $@

$(LIB_A): $(B)inmigrate.o
	$(call say,AR,libinmigrate.a)rm -f $@ && $(AR) rcs $@ $<

$(LIB_SO): $(LIB_OBJ) $(B)lib.list $(srcdir)/inmigrate.map
	$(call say,LD,$(@F))$(LINK) -shared $(if $(SANITIZE),,-Wl,-z,defs) -Wl,-soname,libinmigrate.so.$(SOVERSION) \
		-Wl,--version-script=$(srcdir)/inmigrate.map -o $@ $(LIB_OBJ) $(DEP_LIBS)

$(LIB_SO_LINKS): $(LIB_SO)
	@ln -sf $(<F) $@

$(B)inmigrate: $(PROGRAM_OBJ) $(B)libinternal.a
	$(call say,LD,$(@F))$(LINK) -o $@ $(PROGRAM_OBJ) $(B)libinternal.a $(DEP_LIBS) $(PROGRAM_LIBS)

# Examples see what an embedder sees: the header and the archive.
$(EXAMPLES): $(B)%: $(B)%.o $(LIB_A)
	$(call say,LD,$*)$(LINK) -o $@ $< $(LIB_A) $(DEP_LIBS)

-include $(patsubst %.o,%.d,$(call objects,$(ALL_SRC)))

# ---- for people -------------------------------------------------------------------------------------------------

compile_commands.json: $(B)compile_commands.json
ifneq ($(B),)
.PHONY: compile_commands.json
endif
$(B)compile_commands.json: $(B)config.flags $(B)lib.list
	$(call say,GEN,$@){ echo '['; sep=; for f in $(ALL_SRC); do \
		printf '%s{"directory": "%s", "file": "%s", "command": "%s"}' "$$sep" '$(CURDIR)' "$(srcdir)/$$f" \
		"$$(printf '%s' '$(COMPILE)' | sed 's/["\\]/\\&/g') -c $(srcdir)/$$f"; sep=', '; \
		done; echo ']'; } >$@

RUN_TIDY = $(srcdir)/scripts/tidy --src $(srcdir) --build $(or $(B),.) --compile '$(COMPILE)'
tidy: all
	@$(RUN_TIDY)

demo: all
	@$(srcdir)/scripts/demo --inmigrate $(OUT)/inmigrate

# The version that scripts/tidy asks.
CLANG_FORMAT ?= $(shell command -v clang-format-14 || echo clang-format)
format:
	@$(CLANG_FORMAT) -i $(addprefix $(srcdir)/,$(call find,include/*.h $(foreach f,$(FLOORS) tests examples,\
		$(f)/*.[ch] $(f)/*/*.[ch] $(f)/*/*/*.[ch])))

# ---- installation -------------------------------------------------------------------------------------------------

MAN := $(call find,man/*.[1-8])
man_dirs := $(sort $(foreach m,$(MAN),man$(subst .,,$(suffix $(m)))))

# Anew each time: the folders may be others on this command line.
$(B)inmigrate.pc: FORCE
	$(call say,GEN,inmigrate.pc)$(srcdir)/scripts/pkg-config-file '$(prefix)' '$(exec_prefix)' '$(libdir)' \
		'$(includedir)' '$(VERSION)' $(REQUIRES) >$@

# Folders may have spaces in their names here, and here only.
D = $(DESTDIR)
install: all $(B)inmigrate.pc
	install -d '$(D)$(includedir)' '$(D)$(libdir)/pkgconfig' '$(D)$(bindir)' $(foreach d,$(man_dirs),'$(D)$(mandir)/$(d)')
	install -m 644 $(srcdir)/include/inmigrate.h '$(D)$(includedir)'
	install -m 644 $(LIB_A) $(LIB_SO) '$(D)$(libdir)'
	ln -sf $(notdir $(LIB_SO)) '$(D)$(libdir)/libinmigrate.so.$(SOVERSION)'
	ln -sf libinmigrate.so.$(SOVERSION) '$(D)$(libdir)/libinmigrate.so'
	install -m 644 $(B)inmigrate.pc '$(D)$(libdir)/pkgconfig'
	$(if $(PROGRAM),install -m 755 $(PROGRAM) '$(D)$(bindir)')
	$(foreach m,$(MAN),install -m 644 $(srcdir)/$(m) '$(D)$(mandir)/man$(subst .,,$(suffix $(m)))/' &&) :

uninstall:
	rm -f '$(D)$(includedir)/inmigrate.h' '$(D)$(libdir)/libinmigrate.a' '$(D)$(libdir)/libinmigrate.so' \
		'$(D)$(libdir)/libinmigrate.so.$(SOVERSION)' '$(D)$(libdir)/libinmigrate.so.$(VERSION)' \
		'$(D)$(libdir)/pkgconfig/inmigrate.pc' '$(D)$(bindir)/inmigrate' \
		$(foreach m,$(MAN),'$(D)$(mandir)/man$(subst .,,$(suffix $(m)))/$(notdir $(m))')

# From a clone, what is committed; from an unpacked tarball, that again.
DIST := inmigrate-$(VERSION)
dist:
	@mkdir -p $(OUT)
	@if git -C $(SRC) rev-parse -q --verify HEAD >/dev/null 2>&1 && [ -e $(SRC)/.git ]; then \
		git -C $(SRC) archive --format=tar.gz --prefix=$(DIST)/ -o $(OUT)/$(DIST).tar.gz HEAD; \
	else \
		tar -C $(SRC) --exclude=./build --exclude='./build-*' --exclude=__pycache__ --exclude='./*.tar.gz' \
			--transform='s,^\.,$(DIST),' -czf $(OUT)/$(DIST).tar.gz .; \
	fi
	@echo $(B)$(DIST).tar.gz

# All but what configure made.
clean:
	rm -rf $(addprefix $(B),$(FLOORS) tests examples $(addprefix control-,$(CONTROLS) stress) asan ubsan tsan cover fuzz \
		inmigrate inmigrate.o inmigrate.pc *.a *.so *.so.* *.list compile_commands.json counts *.tar.gz)

distclean: clean
	rm -rf $(if $(B),$(B),config.mk config.h config.log config.flags qemu Makefile)

help:
	@sed -n 's/^#: //p' $(firstword $(wildcard $(srcdir)/Makefile))

#: all                   the library, static and shared, and the program
#: tests                 also every test, bench, fuzzer and example, without running them
#: check                 unit, scenario and platform tests, fuzz regressions, tidy, a minute of stress, a quick interop,
#:                       quick loss tests; the last line is the sum
#: check-stress          `inmigrate stress --matrix`, STRESS_SECONDS of it [60]
#: check-unit            the unit tests
#: check-quick           of each kind of test those that depend on the machine; check-machines: that, with one thing of
#:                       the machine changed, one at a time (root; an hour or more)
#: check-control         scenarios against a library that lacks one protection: each must fail
#: check-cli             the program: options, exit status, files, signals; what is installed; the header
#: check-netem           loss tests: a real QEMU, a network that fails in every way; check-netem-quick: some of them
#: check-asan            the test programs under AddressSanitizer and UBSan; also check-ubsan, check-tsan: each builds in
#:                       a folder of its own
#: check-valgrind        the unit tests under valgrind, and the scenarios that end half way
#: interop               every case with a real QEMU as the source
#: tidy                  floors, headers, symbols, man pages, links and names in pages, probes, scripts, sizes, words
#: fuzz, fuzz-run TIME=  build the fuzzers with libFuzzer (clang); run each for TIME seconds
#: bench                 numbers, with units
#: demo                  a guest is sent and lands
#: cover                 which lines the tests run
#: compile_commands.json for editors
#: format                clang-format on everything
#: install, uninstall    DESTDIR=; prefix= and the other folders of configure, which may be changed here
#: dist                  a tarball
#: clean, distclean
#: V=1 shows commands; one test: build/tests/unit/test_base, with CK_RUN_CASE=name for one case of it

.PHONY: all tidy demo format install uninstall dist clean distclean help FORCE
