/* The command table's types, and everything that is driven by it: finding a command, parsing its flags and arguments,
 * suggesting the nearest name. Help, completion and the reference page (help.h) are made from the same table.
 *
 * Nothing here allocates; hw_ctl_args borrows from argv and from the table. Errors are HW_ERR_INVALID with a sentence.
 */
#ifndef HW_CLI_COMMAND_H
#define HW_CLI_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"

struct hw_ctl;
struct hw_ctl_args;

/* A flag is one of: a switch (value NULL) · a choice (value "a|b|c") · a number (max > 0, checked) · text. */
struct hw_ctl_flag {
    const char *name;  /* without the dashes; NULL ends a table */
    char letter;       /* 0: none */
    const char *value; /* what help calls the value */
    const char *help;
    int64_t min, max;
    bool is_optional; /* a number that may be left out: --watch [SECONDS] */
};

struct hw_ctl_command {
    const char *name;      /* one word or two: "status", "node add"; NULL ends the table */
    const char *arguments; /* "KEY [RANGE_END]": the words in brackets may be left out */
    const char *help;      /* one line */
    const char *details;   /* more, for --help and the reference page; may be NULL */
    const char *json;      /* the fields of -o json; may be NULL */
    const struct hw_ctl_flag *flags;
    const char *const *examples; /* without "hwctl"; NULL at the end */
    bool has_plain;              /* -o plain is offered */
    /* 0, a negative hw_err with e set, or a positive exit code when everything was said already. */
    int (*run)(struct hw_ctl *ctl, const struct hw_ctl_args *args, struct hw_error *e);
};

#define HW_CTL_WORDS_MAX 8
#define HW_CTL_FLAGS_MAX 20

struct hw_ctl_value {
    bool is_set;
    const char *text;
    int64_t number;
};

struct hw_ctl_args {
    const struct hw_ctl_command *command; /* NULL: none was named */
    const char *group;                    /* "node" when only the first word of a two-word command was given */
    const char *words[HW_CTL_WORDS_MAX];
    unsigned word_count;
    bool is_help;
    struct hw_ctl_value values[HW_CTL_FLAGS_MAX];  /* by position in command->flags */
    struct hw_ctl_value globals[HW_CTL_FLAGS_MAX]; /* by position in hw_ctl_globals */
};

/* commands.c */
extern const struct hw_ctl_command hw_ctl_commands[];
extern const struct hw_ctl_flag hw_ctl_globals[];

/* argv[0] is the program. With --help nothing but the command is checked. */
int hw_ctl_parse(int argc, const char *const *argv, struct hw_ctl_args *args, struct hw_error *e);

const struct hw_ctl_command *hw_ctl_command_find(const char *name);
/* Does some command's name begin with this word and a second one? */
bool hw_ctl_is_group(const char *word);
/* The nearest name of a command (or of a group), NULL when nothing is near. Valid until the next call. */
const char *hw_ctl_suggest(const char *name);
/* How many words an `arguments` text asks for, at least and at most. */
void hw_ctl_arity(const char *arguments, unsigned *min, unsigned *max);

/* Flags by name; a name that is not in the tables is a bug. */
bool hw_ctl_is_set(const struct hw_ctl_args *args, const char *name);
int64_t hw_ctl_number(const struct hw_ctl_args *args, const char *name, int64_t otherwise);
const char *hw_ctl_text(const struct hw_ctl_args *args, const char *name, const char *otherwise);
/* Argument i, or NULL. */
const char *hw_ctl_word(const struct hw_ctl_args *args, unsigned i);

/* A whole text as a number in [min, max]. */
bool hw_ctl_is_number(const char *text, int64_t min, int64_t max, int64_t *number);
/* Is word one of the choices "a|b|c"? */
bool hw_ctl_is_choice(const char *choices, const char *word);

#endif
