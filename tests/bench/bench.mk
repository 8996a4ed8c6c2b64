# What `make bench` needs besides the Makefile's own targets; bench.py runs it: make -f tests/bench/bench.mk bench-tools
include Makefile

$(B)/hwbench: $(call obj,tests/load/hwbench.c $(wildcard tests/load/bench_*.c)) $(B)/libhw.a
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(B)/ideal: $(call obj,$(wildcard tests/bench/ideal*.c))
	@$(CC) $(LDFLAGS) -o $@ $^

.PHONY: bench-tools
bench-tools: $(B)/hwbench $(B)/ideal
