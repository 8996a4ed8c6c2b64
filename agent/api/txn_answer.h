/* Private to agent/api: the answer of a transaction, read or applied. What is at hand is written at once. A long range
 * was deferred (hot.h): it is read as of its place in the transaction, in slices of the budget that all ranges share
 * (range.h), while later writes go on.
 *
 * Answers with deferred ranges are built one after another, so that together they take no more memory than one; those
 * that wait hold what was at hand, and end with their deadline at the latest. Loop thread.
 */
#ifndef HW_API_TXN_ANSWER_H
#define HW_API_TXN_ANSWER_H

#include "agent/api/exchange.h"

/* So many at most; beyond, TOO_MANY_REQUESTS (a write has taken effect then). */
#define HW_TXN_ANSWERS_MAX 1024

struct hw_txn_answer;

/* Ends the exchange, now or later. The result is taken over. */
void hw_txn_answer(struct hw_exchange *x, struct hw_result *result);
bool hw_txn_has_deferred(const struct hw_txn_result *txn);

/* Of those being built. */
size_t hw_txn_answers_bytes(const struct hw_api *api);
void hw_txn_answers_init(struct hw_api *api);
/* After all exchanges have ended. */
void hw_txn_answers_close(struct hw_api *api);

#endif
