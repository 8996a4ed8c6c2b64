# HotWarm. `make help` lists the targets.
# Everything is built out of tree under build/$(VARIANT); VARIANT is release, debug, asan or fuzz.

VARIANT ?= release
CC ?= gcc
AR ?= ar
B := build/$(VARIANT)
GEN := build/gen
VERSION := 0.1.0
RAFT_MIN := 0.22

PKGS := raft libuv sqlite3 libnghttp2 yaml-0.1 jansson libprotobuf-c libxxhash
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wundef -Wvla \
	-Wwrite-strings $(if $(findstring clang,$(CC)),,-Wno-format-truncation)
CPPFLAGS += -D_GNU_SOURCE -DHW_VERSION=\"$(VERSION)\" -I. -I$(GEN)
CFLAGS += -std=gnu11 -g -fno-omit-frame-pointer -pthread
OPT_release := -O2
OPT_debug := -O0
OPT_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_fuzz := -O1 -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -DHW_FUZZ
CFLAGS += $(OPT_$(VARIANT))
LDFLAGS += -pthread $(OPT_$(VARIANT))

# Looked up once, when something is built.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $(shell pkg-config --libs $(PKGS)))$(PKG_LIBS)
LIBS = $(PKG_LIBS) -lhttp_parser -lm

PROTOS := $(wildcard proto/*.proto)
GEN_C := $(PROTOS:proto/%.proto=$(GEN)/proto/%.pb-c.c)
GEN_H := $(GEN_C:.c=.h)

AGENT_SRC := $(filter-out agent/main.c,$(wildcard agent/*/*.c storage/*/*.c))
CLI_SRC := $(filter-out cli/main.c,$(wildcard cli/*.c))
UNIT_SRC := $(wildcard tests/unit/*.c tests/unit/*/*.c tests/unit/*/*/*.c)
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
GEN_OBJ := $(GEN_C:build/%.c=$(B)/obj/%.o)
AGENT_OBJ := $(call obj,$(AGENT_SRC)) $(GEN_OBJ)
CLI_OBJ := $(call obj,$(CLI_SRC))
UNIT_OBJ := $(call obj,$(UNIT_SRC))

.PHONY: all deps test unit integration compat sim demo bench check-asan check-valgrind fuzz fuzz-seeds \
	tidy fmt install clean help
.DEFAULT_GOAL := all

all: $(B)/hwagent $(B)/hwctl ## build hwagent and hwctl (needs `make deps` once)

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what is needed to build, test and run
	@deploy/deps.sh

# One sentence instead of a page of compiler errors when a library is absent or too old.
$(B)/.libs: Makefile
	@mkdir -p $(@D)
	@pkg-config --atleast-version=$(RAFT_MIN) raft || { \
		echo "HotWarm needs libraft >= $(RAFT_MIN), found '$$(pkg-config --modversion raft 2>/dev/null || echo none)': run make deps" >&2; exit 1; }
	@pkg-config --exists $(PKGS) || { echo "a library is missing: run make deps" >&2; pkg-config --print-errors --exists $(PKGS); exit 1; }
	@touch $@

$(GEN)/proto/%.pb-c.c $(GEN)/proto/%.pb-c.h: proto/%.proto | $(B)/.libs
	@mkdir -p $(@D)
	@protoc-c --proto_path=. --c_out=$(GEN) $<

$(B)/obj/gen/%.o: build/gen/%.c
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/obj/%.o: %.c $(B)/.libs | $(GEN_H)
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(WARN) -MMD -MP -c $< -o $@

$(B)/libhw.a: $(AGENT_OBJ)
	@rm -f $@
	@$(AR) rcs $@ $^

$(B)/hwagent: $(call obj,agent/main.c) $(B)/libhw.a
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(B)/hwctl: $(call obj,cli/main.c) $(CLI_OBJ) $(B)/libhw.a
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -lsmartcols

$(B)/unit: $(UNIT_OBJ) $(CLI_OBJ) $(B)/libhw.a
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -lcunit -lsmartcols

$(B)/hwload: $(call obj,tests/load/hwload.c) $(B)/libhw.a
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

unit: $(B)/unit ## build and run the unit tests (SUITE=name for one)
	@$(B)/unit $(SUITE)

integration: all $(B)/hwload ## real processes and etcdctl (CASE=name for one)
	@VARIANT=$(VARIANT) python3 tests/integration/run.py $(CASE)

compat: all ## write docs/etcd-compat.md from its table, and compare with a real etcd
	@python3 tests/integration/compat.py
	@VARIANT=$(VARIANT) python3 tests/integration/run.py test_compat

# The two commands of the README do their own set-up. Sub-makes, because pkg-config is asked after the installation.
test: deps ## install what is missing, build, run every test
	@$(MAKE) --no-print-directory all build/$(VARIANT)/unit build/$(VARIANT)/hwload
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory integration

demo: deps ## three agents, kill -9 under load, a rebuild, and the proof that nothing was lost
	@$(MAKE) --no-print-directory all build/$(VARIANT)/hwload
	@VARIANT=$(VARIANT) python3 tests/demo/demo.py

check-asan: ## build and run all tests with AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory VARIANT=asan all build/asan/unit build/asan/hwload
	@$(MAKE) --no-print-directory VARIANT=asan unit
	@$(MAKE) --no-print-directory VARIANT=asan SEEDS=100 sim
	@$(MAKE) --no-print-directory VARIANT=asan integration

$(B)/sim: $(call obj,$(wildcard tests/sim/*.c)) $(B)/libhw.a
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

SEEDS ?= 200
SEED ?= 1
sim: $(B)/sim ## simulated clusters with seeded faults (SEEDS=how many SEED=first)
	@$(B)/sim --seeds $(SEEDS) --first $(SEED)
	@for bug in vote fsync durable ack lease; do $(B)/sim --canary $$bug --seeds 50 >/dev/null || \
		{ echo "sim: the seeded bug '$$bug' was not found" >&2; exit 1; }; done

# The suites without processes of their own; valgrind is 20 to 50 times slower.
VALGRIND := valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite,indirect \
	--errors-for-leak-kinds=definite,indirect --fair-sched=yes
check-valgrind: build/release/unit ## run the unit tests under valgrind (SUITE="a b" for some)
	@HW_MODEL_OPS=5000 HW_SIM_SEEDS=5 $(VALGRIND) build/release/unit $(or $(SUITE),base config hot warm http loop cluster api_arena api_err api_kv api_txn cli)

PREFIX ?= /usr/local
install: all ## install the two binaries and the service unit under PREFIX (DESTDIR is honoured)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/doc/hotwarm
	install -m 755 $(B)/hwagent $(B)/hwctl $(DESTDIR)$(PREFIX)/bin
	sed 's|@PREFIX@|$(PREFIX)|g' deploy/hotwarm.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/hotwarm.service
	install -m 644 README.md LICENSE NOTICE deploy/hotwarm.yaml $(DESTDIR)$(PREFIX)/share/doc/hotwarm

bench: deps ## HotWarm beside etcd on this machine, in one run (ARGS="--trials 20")
	@$(MAKE) --no-print-directory all build/$(VARIANT)/hwload
	@VARIANT=$(VARIANT) python3 tests/bench/bench.py $(ARGS)

# One program per decoder of foreign bytes; a found input is kept in build/fuzz and named.
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 20
JOBS ?= 1
fuzz: ## run every fuzzer for FUZZ_SECONDS seconds, JOBS at once (FUZZERS="fuzz_x fuzz_y" for some)
	@$(MAKE) --no-print-directory VARIANT=fuzz CC=clang $(FUZZERS:%=build/fuzz/%)
	@JOBS=$(JOBS) tests/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZERS)

fuzz-seeds: ## make the fuzzers' first inputs anew, and keep of all that was found what covers more (tests/fuzz/corpus)
	@$(MAKE) --no-print-directory VARIANT=fuzz CC=clang build/fuzz/seeds $(FUZZERS:%=build/fuzz/%)
	@tests/fuzz/keep.sh $(FUZZERS)

build/fuzz/seeds: build/fuzz/obj/tests/fuzz/seeds.o build/fuzz/libhw.a
	@$(CC) $(LDFLAGS) -fsanitize=fuzzer-no-link -o $@ $^ $(LIBS)

.SECONDARY: $(FUZZERS:%=build/fuzz/obj/tests/fuzz/%.o)
build/fuzz/fuzz_%: build/fuzz/obj/tests/fuzz/fuzz_%.o build/fuzz/libctl.a build/fuzz/libhw.a
	@$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS) -lsmartcols

# An archive, so that a fuzzer takes only what it names.
build/fuzz/libctl.a: $(CLI_OBJ)
	@rm -f $@
	@$(AR) rcs $@ $^

tidy: ## style checks of the tree, and their canaries
	@python3 tests/tidy/tidy.py
	@python3 tests/tidy/tidy.py --canaries

fmt: ## format all C files with clang-format
	@clang-format -i $$(git ls-files '*.c' '*.h' | grep -v tests/tidy/canaries)

clean: ## remove build/
	@rm -rf build

-include $(shell find build/$(VARIANT)/obj -name '*.d' 2>/dev/null)
