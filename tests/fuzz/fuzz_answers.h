/* The format of fuzz_answers' inputs, shared with the program that makes its first ones (seeds.c). */
#ifndef HW_FUZZ_ANSWERS_H
#define HW_FUZZ_ANSWERS_H

/* The first byte. */
enum { SCENE_WARM = 0, SCENE_REBUILD = 1, SCENE_FORMING = 2, SCENE_JOINING = 3, SCENE_MASK = 3, SCENE_OWN_HELLO = 4 };

enum {
    ANSWER_WHOLE,   /* headers, one message, OK */
    ANSWER_BEGIN,   /* headers */
    ANSWER_MESSAGE, /* one more message */
    ANSWER_END,     /* trailers; the length says which status */
    ASK_PUT,        /* a client's call, that makes the node ask the peer */
    ASK_RANGE,
    ASK_KEEP_ALIVE,
    ASK_STATUS,
    ANSWER_LATER, /* time passes, a new connection comes about */
    ANSWER_CUT,   /* the connection breaks */
    ANSWER_KINDS
};

#endif
