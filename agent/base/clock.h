/* Clocks. Deadlines and leases count on CLOCK_BOOTTIME (it goes on while the machine sleeps and never jumps); wall time
 * is only for what people read. Units are in the names.
 */
#ifndef HW_BASE_CLOCK_H
#define HW_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Since boot, suspended time included. */
uint64_t hw_mono_ns(void);
uint64_t hw_mono_us(void);
uint64_t hw_mono_ms(void);

/* Since the Unix epoch. */
uint64_t hw_wall_ms(void);

#define HW_RFC3339_SIZE 32
/* "2026-01-31T23:59:59.123Z" in UTC. Returns buf. */
const char *hw_rfc3339(uint64_t wall_ms, char buf[HW_RFC3339_SIZE]);

#endif
