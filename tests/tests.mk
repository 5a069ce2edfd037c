# tests.mk - how the tests are made and run; the Makefile includes it, and has the words used here: find, list, say

# ---- what there is ------------------------------------------------------------------------------------------------

SUPPORT_SRC := $(call find,tests/support/*.c)
UNIT_SRC := $(call find,tests/unit/test_*.c)
SCENARIO_SRC := $(call find,tests/scenario/test_*.c)
PLATFORM_SRC := $(call find,tests/platform/*.c)
BUDGET_SRC := $(call find,tests/budget/test_*.c)
BENCH_SRC := $(call find,tests/bench/bench_*.c)
FUZZ_SRC := $(call find,tests/fuzz/fuzz_*.c)
NETEM_SRC := $(call find,tests/netem/*.c)
TEST_SRC := $(SUPPORT_SRC) $(UNIT_SRC) $(SCENARIO_SRC) $(PLATFORM_SRC) $(BUDGET_SRC) $(BENCH_SRC) $(FUZZ_SRC) \
	$(NETEM_SRC) tests/fuzz/driver.c

SUPPORT_OBJ := $(call objects,$(SUPPORT_SRC))
UNIT := $(call programs,$(UNIT_SRC))
SCENARIO := $(call programs,$(SCENARIO_SRC))
PLATFORM := $(call programs,$(PLATFORM_SRC))
BUDGET := $(call programs,$(BUDGET_SRC))
BENCH := $(call programs,$(BENCH_SRC))
FUZZ := $(call programs,$(FUZZ_SRC))
NETEM := $(if $(NETEM_SRC),$(B)tests/netem/link)
# The long ones first: several run at the same time.
TESTS := $(SCENARIO) $(BUDGET) $(UNIT) $(PLATFORM)

tests: all $(TESTS) $(BENCH) $(FUZZ) $(EXAMPLES) $(NETEM)

# ---- how it is made -----------------------------------------------------------------------------------------------

$(call objects,$(TEST_SRC)): COMPILE += $(CHECK_CFLAGS) $(PROGRAM_CFLAGS)

$(eval $(call list,$(B)support,$(SUPPORT_OBJ)))
$(B)libsupport.a: $(SUPPORT_OBJ) $(B)support.list
	$(call say,AR,libsupport.a)rm -f $@ && $(AR) rcs $@ $(SUPPORT_OBJ)

# main() is in tests/support/check_main.c; the linker takes it only for tests that have none of their own. All begin with
# signals as they expect them: tests/support/signals.h.
AT_START := -Wl,--undefined=signals_as_expected
$(TESTS) $(BENCH): $(B)%: $(B)%.o $(B)libsupport.a $(B)libinternal.a
	$(call say,LD,$*)$(LINK) $(AT_START) $(WRAPPED:%=-Wl,--wrap=%) -o $@ $< $(OF_PROGRAM) \
		-Wl,--start-group $(B)libsupport.a $(B)libinternal.a -Wl,--end-group $(DEP_LIBS) $(PROGRAM_LIBS) $(CHECK_LIBS)

# Each switch of stacks is seen: tests/support/stall.h.
$(BUDGET): WRAPPED := ctx_switch

# What the kernel says only when it is short of something is said by the test.
$(B)tests/scenario/test_recovery_faults: WRAPPED := uffd_continue uffd_read group_spawn hello_read ledger_send

# A control is a scenario linked against a library that lacks one protection: it must fail, or it proves nothing.
# NAME: the file compiled again, the switch that takes the protection away, the scenario and the case in it that must
# fail, and what it must say.
CONTROLS := arrival-order no-sync no-preempt-wait no-gate
CONTROL_arrival-order := engine/stream/hello CONTROL_ARRIVAL_ORDER test_discovery order 'did not land|it hangs'
CONTROL_no-sync := engine/ram/multifd_barrier CONTROL_NO_SYNC test_multifd barrier 'not what was sent last|landed before all'
CONTROL_no-preempt-wait := engine/preempt CONTROL_NO_PREEMPT_WAIT test_switchover never 'it hangs'
CONTROL_no-gate := memory/gate CONTROL_NO_GATE test_switch_barrier overwritten 'was overwritten'
control_word = $(word $(2),$(CONTROL_$(1)))

define control
$(B)control-$(1)/changed.o: $(srcdir)/$(call control_word,$(1),1).c $(B)config.flags
	@mkdir -p $$(@D)
	$(call say,CC,$(call control_word,$(1),1).c -D$(call control_word,$(1),2))$$(COMPILE) \
		-D$(call control_word,$(1),2) -MMD -MP -MF $$(@:.o=.d) -c -o $$@ $$<

# The changed object comes before the archive, whose own is then not taken.
$(B)control-$(1)/$(call control_word,$(1),3): $(B)tests/scenario/$(call control_word,$(1),3).o \
		$(B)control-$(1)/changed.o $(B)libsupport.a $(B)libinternal.a
	$(call say,LD,control-$(1)/$(call control_word,$(1),3))$$(LINK) $(AT_START) -o $$@ $$(filter %.o,$$^) \
		-Wl,--start-group $(B)libsupport.a $(B)libinternal.a -Wl,--end-group $$(DEP_LIBS) $$(CHECK_LIBS)

-include $(B)control-$(1)/changed.d
endef
$(foreach c,$(CONTROLS),$(eval $(call control,$(c))))
CONTROL_PROGRAMS := $(foreach c,$(CONTROLS),$(B)control-$(c)/$(call control_word,$(c),3))

# The program that goes by the order of arrival: tests/netem/run must find it out.
NETEM_CONTROL := $(B)control-arrival-order/inmigrate
$(NETEM_CONTROL): $(PROGRAM_OBJ) $(B)control-arrival-order/changed.o $(B)libinternal.a
	$(call say,LD,control-arrival-order/inmigrate)$(LINK) -o $@ $(filter %.o,$^) $(B)libinternal.a $(DEP_LIBS) \
		$(PROGRAM_LIBS)

# The same for the program: `inmigrate stress` must find what a file of postcopy/ does wrong; tests/program/test_stress.py
# has the runs that do.
STRESS_CONTROLS := show:NO_WAKE_AFTER_EEXIST place:PLACE_BEFORE_CLAIM place:EAGAIN_DONE fault:IGNORE_REMOVE \
	pblock:4096
define stress_control
$(B)control-stress/$(2): $(srcdir)/postcopy/$(1).c $(PROGRAM_OBJ) $(B)libinternal.a
	@mkdir -p $$(@D)
	$$(call say,LD,control-stress/$(2))$$(COMPILE) -DCONTROL_$(2) -c -o $$@.o $$< && \
		$$(LINK) -o $$@ $$@.o $$(PROGRAM_OBJ) $(B)libinternal.a $$(DEP_LIBS) $$(PROGRAM_LIBS)
endef
stress_word = $(word $(1),$(subst :, ,$(2)))
$(foreach c,$(STRESS_CONTROLS),$(eval $(call stress_control,$(call stress_word,1,$(c)),$(call stress_word,2,$(c)))))
STRESS_CONTROL_PROGRAMS := $(foreach c,$(STRESS_CONTROLS),$(B)control-stress/$(call stress_word,2,$(c)))

FUZZ_DRIVER = $(if $(filter 1,$(FUZZER)),-fsanitize=fuzzer,$(B)tests/fuzz/driver.o)
$(FUZZ): $(B)%: $(B)%.o $(B)tests/fuzz/driver.o $(B)libsupport.a $(B)libinternal.a
	$(call say,LD,$*)$(LINK) -o $@ $< $(OF_PROGRAM) $(FUZZ_DRIVER) -Wl,--start-group $(B)libsupport.a \
		$(B)libinternal.a -Wl,--end-group $(DEP_LIBS) $(PROGRAM_LIBS) $(CHECK_LIBS)

# A file of the program's that is tested alone.
SHOWN := $(B)tests/unit/test_devices_json $(B)tests/budget/test_held_devices $(B)tests/fuzz/fuzz_devices
$(SHOWN): $(B)programs/listen/devices_json.o
$(SHOWN): OF_PROGRAM := $(B)programs/listen/devices_json.o

# The emulated network: a program of several files, none of which is in the library.
$(NETEM): $(call objects,$(NETEM_SRC)) $(B)libinternal.a
	$(call say,LD,tests/netem/link)$(LINK) -o $@ $(call objects,$(NETEM_SRC)) $(B)libinternal.a $(DEP_LIBS)

# ---- how they run -------------------------------------------------------------------------------------------------

# A sanitizer makes everything slower.
ifneq ($(SANITIZE),)
TEST_TIMEOUT ?= 600
CK_TIMEOUT_MULTIPLIER ?= 5
UBSAN_OPTIONS ?= print_stacktrace=1
# A SIGBUS of the engine view comes where the thread touches memory, and nowhere else: its handler parks, and may
# allocate.
TSAN_OPTIONS ?= second_deadlock_stack=1 report_signal_unsafe=0
CUTS ?= 24
export CK_TIMEOUT_MULTIPLIER UBSAN_OPTIONS TSAN_OPTIONS CUTS
endif
TEST_TIMEOUT ?= 300
# ThreadSanitizer is the slowest, and looks for what does not depend on where a stream is cut: the other flavours cut
# at every byte.
ifneq ($(filter -fsanitize=thread,$(SANITIZE)),)
CAPTURED_EVERY ?= 31
MUTATIONS ?= 500
export CAPTURED_EVERY MUTATIONS
endif
# What tests may want to know; the paths are absolute because a test may change folder.
export TEST_PROGRAM := $(OUT)/inmigrate
export TEST_SRCDIR := $(SRC)
RUN_TESTS = $(srcdir)/scripts/run-tests --counts $(OUT)/counts --strip $(OUT)
# They wait most of their time.
PROCESSORS := $(shell $(srcdir)/scripts/processors)
TEST_JOBS ?= $(shell expr 3 '*' $(PROCESSORS))
RUN_MANY = $(RUN_TESTS) --jobs $(TEST_JOBS)

# Sources: the installed QEMU, and the newer one that `configure --install-deps` unpacks.
INTEROP_QEMU ?= qemu-system-x86_64 $(abspath $(wildcard $(B)qemu/qemu-system-x86_64))
export INTEROP_QEMU

# Each line of a check adds its numbers to this file and goes on; the last prints the sum and says how it went.
counts_begin = @rm -f $(OUT)/counts
counts_end = @$(RUN_TESTS) --sum

FUZZ_REGRESSION = $(foreach f,$(FUZZ),$(if $(call find,tests/fuzz/regression/$(notdir $(f))/*),$(f)))

check: tests need-check
	$(counts_begin)
	@$(RUN_MANY) --timeout $(TEST_TIMEOUT) $(TESTS) || :
	@$(MAKE) check-fuzz check-cli check-netem-link
	@$(MAKE) check-control
	@$(RUN_TESTS) --timeout 600 --once --live --name tidy -- $(RUN_TIDY) || :
	@$(MAKE) check-stress
	@$(MAKE) check-interop
	@$(MAKE) check-netem-quick
	$(counts_end)

# The unit tests alone: quick.
check-unit: $(UNIT) need-check
	$(counts_begin)
	@$(RUN_MANY) --timeout $(TEST_TIMEOUT) $(UNIT) || :
	$(counts_end)

# What a machine may have its way with, in a minute or two: tests/machines/run does it under each of its variations.
# Left out is what computes for long, and asks the machine for nothing that others do not.
QUICK_SKIP := scenario/test_captured scenario/test_contest scenario/test_hostile scenario/test_hostile_ram \
	scenario/test_mutation scenario/test_prefix scenario/test_recovery scenario/test_recovery_cuts \
	scenario/test_recovery_meeting scenario/test_recovery_calls scenario/test_discovery_ends \
	scenario/test_postcopy_races scenario/test_multifd_lies unit/test_multifd_decode unit/test_split unit/test_ring
QUICK := $(filter-out $(addprefix $(B)tests/,$(QUICK_SKIP)) $(filter $(B)tests/budget/test_stall%,$(BUDGET)),$(TESTS))
QUICK_PROGRAM := test_process test_probe test_header test_runners test_touch test_command_line
QUICK_INTEROP := ^(microvm-running|pc-stopped-tcg|x-ignore-shared|transport-.*|tls-.*|postcopy-plain)$$
QUICK_NETEM := ^(set-up-psk-2|loss-5-preempt)$$
.PHONY: check-quick check-machines
check-quick: tests need-check
	$(counts_begin)
	@$(RUN_MANY) --timeout $(TEST_TIMEOUT) $(QUICK) || :
	@$(RUN_TESTS) --timeout 600 --once --name tests/program -- \
		$(SRC)/tests/program/run $(QUICK_PROGRAM:%=-k %) || :
	@$(MAKE) check-netem-link
	@CC='$(CC)' $(RUN_TESTS) --timeout 600 --once --live --name interop -- \
		$(INTEROP) --inmigrate $(OUT)/inmigrate --quick -k '$(QUICK_INTEROP)' || :
	@CC='$(CC)' $(RUN_TESTS) --timeout 600 --once --live --name netem -- \
		$(SRC)/tests/netem/run --inmigrate $(OUT)/inmigrate --build $(OUT) --setups 0 -k '$(QUICK_NETEM)' || :
	$(counts_end)

check-machines:
	@$(srcdir)/tests/machines/run

# Past crashes, once more.
check-fuzz: $(FUZZ)
	@$(foreach f,$(FUZZ_REGRESSION),$(RUN_TESTS) --name tests/fuzz/regression/$(notdir $(f)) --once -- \
		$(OUT)/tests/fuzz/$(notdir $(f)) $(SRC)/tests/fuzz/regression/$(notdir $(f))/* || :;) :

# The program as its user sees it.
check-cli: $(PROGRAM) $(STRESS_CONTROL_PROGRAMS)
ifeq ($(PROGRAM),)
	@$(RUN_TESTS) --skip 'there is no program' program
else
	@$(RUN_TESTS) --label '$(FLAVOUR)' --timeout 600 --once --name tests/program -- \
		$(SRC)/tests/program/run || :
endif

# The emulated network does what is asked of it.
check-netem-link: $(NETEM)
	@$(RUN_TESTS) --label '$(FLAVOUR)' --timeout $(TEST_TIMEOUT) --once --name tests/netem -- \
		$(SRC)/tests/netem/test_link --build $(OUT) || :

# A guest goes over networks that fail: real QEMUs send it, over that network. Quick: two minutes on two cores, with KVM
# or without; nothing fails because it takes longer. The program that goes by the order of arrival, where it is made,
# must go wrong.
NETEM_JOBS ?= 10
RUN_NETEM = CC='$(CC)' $(RUN_TESTS) --once --live --name $(@:check-%=%) --timeout
NETEM_RUN = $(SRC)/tests/netem/run --inmigrate $(OUT)/inmigrate --build $(OUT) -j $(NETEM_JOBS) \
	$(if $(NETEM_CONTROL),--control $(abspath $(NETEM_CONTROL)))
.PHONY: check-netem check-netem-quick
check-netem-quick: $(PROGRAM) $(NETEM) $(NETEM_CONTROL)
	@$(RUN_NETEM) 900 -- $(NETEM_RUN) --quick || :

check-netem: $(PROGRAM) $(NETEM) $(NETEM_CONTROL)
	$(counts_begin)
	@$(RUN_NETEM) 7200 -- $(NETEM_RUN) || :
	$(counts_end)

# Every combination of memory, placement and events that this kernel has, a moment each.
STRESS_SECONDS ?= 60
.PHONY: check-stress
check-stress: $(PROGRAM)
	@$(RUN_TESTS) --timeout 600 --once --name stress -- $(SRC)/scripts/with-huge-pages 64 \
		$(OUT)/inmigrate stress --matrix --seconds $(STRESS_SECONDS) || :

# They pass when they fail, as they must.
check-control: $(CONTROL_PROGRAMS)
	@$(foreach c,$(CONTROLS),$(RUN_TESTS) --timeout $(TEST_TIMEOUT) --name control-$(c) --once -- \
		$(srcdir)/scripts/control $(OUT)/control-$(c)/$(call control_word,$(c),3) \
		$(wordlist 4,99,$(CONTROL_$(c))) || :;) :

# Guests want processors.
INTEROP_JOBS ?= $(PROCESSORS)
INTEROP := $(wildcard $(srcdir)/tests/interop/run)
check-interop: $(PROGRAM)
ifeq ($(INTEROP),)
	@$(RUN_TESTS) --skip 'tests/interop/run is not there' interop
else ifeq ($(PROGRAM),)
	@$(RUN_TESTS) --skip 'there is no program' interop
else
	@CC='$(CC)' $(RUN_TESTS) --timeout 1200 --once --live --name interop -- \
		$(INTEROP) --inmigrate $(OUT)/inmigrate --quick -j $(INTEROP_JOBS) || :
endif

need-check:
	@test $(HAVE_CHECK) = 1 || { echo 'the tests need Check: see ./configure --install-deps' >&2; exit 1; }

# What a flavour runs: the programs, no tidy and no interop. Names in TSAN_SKIP (unit/test_x) make no sense there.
TSAN_SKIP :=
FLAVOUR_SKIP := $(if $(filter -fsanitize=thread,$(SANITIZE)),$(TSAN_SKIP))
check-programs: tests need-check
	$(counts_begin)
	@$(RUN_MANY) --label '$(FLAVOUR)' --timeout $(TEST_TIMEOUT) \
		$(filter-out $(addprefix $(B)tests/,$(FLAVOUR_SKIP)),$(TESTS)) || :
	@$(MAKE) check-fuzz check-cli check-netem-link
	$(counts_end)

# A build of another flavour lives in a folder of its own below this one, configured like this one and a bit more.
FUZZ_OPTIONS = $(shell command -v clang >/dev/null && echo CC=clang --enable-fuzzer) --enable-asan --enable-ubsan
# $(call flavour,NAME,OPTIONS)
define flavour
$(B)$(1)/config.mk: $(B)config.mk $(srcdir)/configure
	@mkdir -p $$(@D)
	cd $$(@D) && $(SRC)/configure $$(CONFIGURE_ARGS) $(2) >configure.out || { cat configure.out; exit 1; }
endef
$(eval $(call flavour,asan,--enable-asan --enable-ubsan))
$(eval $(call flavour,ubsan,--enable-ubsan))
$(eval $(call flavour,tsan,--enable-tsan))
$(eval $(call flavour,cover,--enable-cover CFLAGS='-O0 -g'))
$(eval $(call flavour,fuzz,$$(FUZZ_OPTIONS)))

check-asan check-ubsan check-tsan: check-%: $(B)%/config.mk
	@$(MAKE) -C $(<D) FLAVOUR=$* check-programs

# Names in VALGRIND_SKIP (unit/test_x) make no sense there: those that are about time, or about userfaultfd: test_yield
# waits forever, because its SIGBUS does not come back. Of the scenarios those run that end half way: while channels are
# found, inside TLS, at a cancel. Of two only some cases: test_multifd would take too long; in test_cancel's last one a
# thread cancels, and under valgrind 3.19 no thread runs while another waits in io_uring_enter.
VALGRIND_CASES := scenario/test_cancel:dispatch scenario/test_cancel:callbacks scenario/test_multifd:barrier
VALGRIND_SKIP := scenario/test_multifd unit/test_yield
VALGRIND_SCENARIO := $(filter $(addprefix $(B)tests/scenario/test_,discovery% multifd% tls% lifecycle%),$(SCENARIO))
VALGRIND_TESTS := $(filter-out $(addprefix $(B)tests/,$(VALGRIND_SKIP)),$(VALGRIND_SCENARIO) $(UNIT))
VALGRIND := valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite \
	--errors-for-leak-kinds=definite --num-callers=30
RUN_VALGRIND = CK_TIMEOUT_MULTIPLIER=10 $(RUN_MANY) --label valgrind --timeout 600 --wrap '$(VALGRIND)'
valgrind_program = $(B)tests/$(firstword $(subst :, ,$(1)))
check-valgrind: all $(VALGRIND_TESTS) $(foreach c,$(VALGRIND_CASES),$(call valgrind_program,$(c))) need-check
	$(counts_begin)
	@$(RUN_VALGRIND) $(VALGRIND_TESTS) || :
	@$(foreach c,$(VALGRIND_CASES),$(RUN_VALGRIND) --case $(lastword $(subst :, ,$(c))) \
		$(call valgrind_program,$(c)) || :;) :
	$(counts_end)

TIME ?= 60
fuzz: $(B)fuzz/config.mk
	@$(MAKE) -C $(<D) fuzz-programs
fuzz-programs: $(FUZZ)

FUZZ_SEEDS = $(wildcard $(srcdir)/tests/fuzz/corpus/$* $(srcdir)/tests/fuzz/regression/$*)

# Each fuzzer for TIME seconds, from its seeds; what it finds stays in the corpus of the build folder.
fuzz-run: fuzz
	@$(MAKE) -C $(B)fuzz TIME=$(TIME) fuzz-run-here
fuzz-run-here: $(addprefix fuzz-run-,$(notdir $(FUZZ)))
$(addprefix fuzz-run-,$(notdir $(FUZZ))): fuzz-run-%: $(B)tests/fuzz/%
	@mkdir -p $(B)corpus/$* $(B)crashes
ifeq ($(FUZZER),1)
	./$< -max_total_time=$(TIME) -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
		-artifact_prefix=$(B)crashes/$*- $(B)corpus/$* $(FUZZ_SEEDS)
else
	timeout $(TIME) ./$< -r 1000000000 $(FUZZ_SEEDS) || [ $$? = 124 ]
endif

bench: all $(BENCH)
	@set -e; for b in $(filter-out %/bench_limits %/bench_tls,$(BENCH)); do echo "== $$b"; ./$$b; done
	@if [ -e $(srcdir)/tests/bench/run ]; then $(srcdir)/tests/bench/run --inmigrate $(OUT)/inmigrate; fi

interop: all
	@CC='$(CC)' $(srcdir)/tests/interop/run --inmigrate $(OUT)/inmigrate -j $(INTEROP_JOBS)

cover: $(B)cover/config.mk
	@$(MAKE) -C $(<D) FLAVOUR=cover check-programs
	@$(srcdir)/scripts/cover --src $(SRC) --build $(OUT)/cover --gcov '$(if $(filter clang,$(COMPILER)),llvm-cov gcov,gcov)'

.PHONY: tests check check-netem-link check-unit check-control check-fuzz check-cli check-interop check-programs \
	check-asan check-ubsan check-tsan check-valgrind need-check fuzz fuzz-programs fuzz-run fuzz-run-here bench \
	interop cover
