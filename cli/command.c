#include "cli/command.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"

/* ---- names ---- */

const struct hw_ctl_command *hw_ctl_command_find(const char *name)
{
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

bool hw_ctl_is_group(const char *word)
{
    size_t len = strlen(word);
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        if (len > 0 && strncmp(c->name, word, len) == 0 && c->name[len] == ' ') {
            return true;
        }
    }
    return false;
}

#define NAME_MAX_LEN 32

/* Edits between two names, with a swap of neighbours as one edit (optimal string alignment). */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned rows[3][NAME_MAX_LEN + 1];
    unsigned *before = rows[0];
    unsigned *above = rows[1];
    unsigned *row = rows[2];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);
    if (a_len > NAME_MAX_LEN || b_len > NAME_MAX_LEN) {
        return NAME_MAX_LEN;
    }
    memset(rows, 0, sizeof rows);
    for (unsigned j = 0; j <= b_len; j++) {
        above[j] = j;
    }
    for (unsigned i = 1; i <= a_len; i++) {
        unsigned *oldest = before;
        row[0] = i;
        for (unsigned j = 1; j <= b_len; j++) {
            unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) {
                best = before[j - 2] + 1;
            }
            row[j] = best;
        }
        before = above;
        above = row;
        row = oldest;
    }
    return above[b_len];
}

/* Near enough to be meant: a third of the name may be wrong, at least one letter. */
static bool is_near(const char *typed, unsigned distance)
{
    size_t len = strlen(typed);
    return distance <= (len < 6 ? 1 + (len > 3) : len / 3);
}

const char *hw_ctl_suggest(const char *name)
{
    static char nearest[NAME_MAX_LEN + 1];
    unsigned best = NAME_MAX_LEN;
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        char group[NAME_MAX_LEN + 1];
        unsigned distance = edit_distance(name, c->name);
        if (distance < best) {
            best = distance;
            snprintf(nearest, sizeof nearest, "%s", c->name);
        }
        snprintf(group, sizeof group, "%.*s", (int)strcspn(c->name, " "), c->name);
        distance = edit_distance(name, group);
        if (distance < best) {
            best = distance;
            snprintf(nearest, sizeof nearest, "%s", group);
        }
    }
    return is_near(name, best) ? nearest : NULL;
}

void hw_ctl_arity(const char *arguments, unsigned *min, unsigned *max)
{
    *min = 0;
    *max = 0;
    for (const char *p = arguments; *p != '\0';) {
        size_t len = strcspn(p, " ");
        *min += *p != '[';
        *max += 1;
        p += len + strspn(p + len, " ");
    }
}

/* ---- values ---- */

bool hw_ctl_is_number(const char *text, int64_t min, int64_t max, int64_t *number)
{
    char *end;
    long long v;
    errno = 0;
    v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || isspace((unsigned char)*text) || errno != 0 || v < min || v > max) {
        return false;
    }
    *number = v;
    return true;
}

bool hw_ctl_is_choice(const char *choices, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = choices; p != NULL; p = strchr(p, '|') != NULL ? strchr(p, '|') + 1 : NULL) {
        if (len > 0 && strcspn(p, "|") == len && strncmp(p, word, len) == 0) {
            return true;
        }
    }
    return false;
}

static int set_value(const struct hw_ctl_flag *f, const char *shown, const char *text, struct hw_ctl_value *v,
                     struct hw_error *e)
{
    v->is_set = true;
    v->text = text;
    if (f->max > 0 && !hw_ctl_is_number(text, f->min, f->max, &v->number)) {
        return hw_error_set(e, HW_ERR_INVALID, "%s wants a number from %lld to %lld, not \"%s\"", shown,
                            (long long)f->min, (long long)f->max, text);
    }
    if (strchr(f->value, '|') != NULL && !hw_ctl_is_choice(f->value, text)) {
        return hw_error_set(e, HW_ERR_INVALID, "%s wants one of %s, not \"%s\"", shown, f->value, text);
    }
    return 0;
}

/* ---- parsing ---- */

struct parser {
    int argc;
    const char *const *argv;
    int at;
    struct hw_ctl_args *args;
    struct hw_error *e;
};

static int find_flag(const struct hw_ctl_flag *flags, const char *name, size_t len, char letter)
{
    for (int i = 0; flags != NULL && flags[i].name != NULL; i++) {
        if (letter != '\0' ? flags[i].letter == letter
                           : strncmp(flags[i].name, name, len) == 0 && flags[i].name[len] == '\0') {
            return i;
        }
    }
    return -1;
}

static const char *nearest_flag(const struct hw_ctl_command *command, const char *name)
{
    const struct hw_ctl_flag *tables[2] = {command != NULL ? command->flags : NULL, hw_ctl_globals};
    const char *nearest = NULL;
    unsigned best = NAME_MAX_LEN;
    for (unsigned t = 0; t < 2; t++) {
        for (const struct hw_ctl_flag *f = tables[t]; f != NULL && f->name != NULL; f++) {
            unsigned distance = edit_distance(name, f->name);
            if (distance < best) {
                best = distance;
                nearest = f->name;
            }
        }
    }
    return is_near(name, best) ? nearest : NULL;
}

static int unknown_flag(struct parser *p, const char *shown, const char *name)
{
    const struct hw_ctl_command *c = p->args->command;
    const char *nearest = name != NULL ? nearest_flag(c, name) : NULL;
    char guess[64] = "";
    if (nearest != NULL) {
        snprintf(guess, sizeof guess, "; did you mean --%s?", nearest);
    }
    if (c == NULL) {
        return hw_error_set(p->e, HW_ERR_INVALID,
                            "no flag %s before the command (flags of a command follow its name)%s", shown, guess);
    }
    return hw_error_set(p->e, HW_ERR_INVALID, "there is no flag %s%s", shown, guess);
}

/* One flag with its value: --name, --name=value, --name value, -n, -nvalue, -n value. */
static int parse_flag(struct parser *p)
{
    const char *arg = p->argv[p->at++];
    bool is_long = arg[1] == '-';
    const char *name = is_long ? arg + 2 : arg + 1;
    size_t len = is_long ? strcspn(name, "=") : 1;
    char letter = is_long ? '\0' : arg[1];
    const char *inline_value = NULL;
    const struct hw_ctl_flag *flags = p->args->command != NULL ? p->args->command->flags : NULL;
    struct hw_ctl_value *values = p->args->values;
    char shown[64];
    int i = find_flag(flags, name, len, letter);
    snprintf(shown, sizeof shown, "%s%.*s", is_long ? "--" : "-", (int)(len < 48 ? len : 48), name);
    if (i < 0) {
        flags = hw_ctl_globals;
        values = p->args->globals;
        i = find_flag(flags, name, len, letter);
    }
    if (i < 0) {
        return unknown_flag(p, shown, is_long && len <= NAME_MAX_LEN ? shown + 2 : NULL);
    }
    if (name[len] != '\0') {
        inline_value = name + len + (name[len] == '=');
    }
    if (flags[i].value == NULL) {
        values[i].is_set = true;
        return inline_value == NULL ? 0 : hw_error_set(p->e, HW_ERR_INVALID, "%s takes no value", shown);
    }
    if (inline_value == NULL && flags[i].is_optional &&
        (p->at >= p->argc || !isdigit((unsigned char)p->argv[p->at][0]))) {
        values[i] = (struct hw_ctl_value){true, NULL, flags[i].min};
        return 0;
    }
    if (inline_value == NULL) {
        if (p->at >= p->argc) {
            return hw_error_set(p->e, HW_ERR_INVALID, "%s wants a value (%s)", shown, flags[i].value);
        }
        inline_value = p->argv[p->at++];
    }
    return set_value(&flags[i], shown, inline_value, &values[i], p->e);
}

static int unknown_command(struct parser *p, const char *typed)
{
    const char *nearest = hw_ctl_suggest(typed);
    if (nearest != NULL) {
        return hw_error_set(p->e, HW_ERR_INVALID, "unknown command \"%.64s\"; did you mean \"%s\"?", typed, nearest);
    }
    return hw_error_set(p->e, HW_ERR_INVALID, "unknown command \"%.64s\"", typed);
}

static int parse_word(struct parser *p, const char *word)
{
    struct hw_ctl_args *a = p->args;
    char full[2 * NAME_MAX_LEN + 2];
    if (a->command != NULL) {
        unsigned min, max;
        hw_ctl_arity(a->command->arguments, &min, &max);
        if (a->word_count >= max || a->word_count >= HW_CTL_WORDS_MAX) {
            return hw_error_set(p->e, HW_ERR_INVALID, "too many arguments at \"%.64s\"; the form is: hwctl %s%s%s",
                                word, a->command->name, max > 0 ? " " : "", a->command->arguments);
        }
        a->words[a->word_count++] = word;
        return 0;
    }
    if (a->group == NULL) {
        a->command = hw_ctl_command_find(word);
        if (a->command == NULL && hw_ctl_is_group(word)) {
            a->group = word;
            return 0;
        }
        return a->command != NULL ? 0 : unknown_command(p, word);
    }
    snprintf(full, sizeof full, "%.32s %.32s", a->group, word);
    a->command = hw_ctl_command_find(full);
    return a->command != NULL ? 0 : unknown_command(p, full);
}

static int check_count(struct parser *p)
{
    const struct hw_ctl_command *c = p->args->command;
    unsigned min, max;
    if (c == NULL) {
        if (p->args->group != NULL) {
            return hw_error_set(p->e, HW_ERR_INVALID, "\"%s\" wants a sub-command", p->args->group);
        }
        return hw_error_set(p->e, HW_ERR_INVALID, "no command given");
    }
    hw_ctl_arity(c->arguments, &min, &max);
    if (p->args->word_count < min) {
        return hw_error_set(p->e, HW_ERR_INVALID, "arguments are missing; the form is: hwctl %s %s", c->name,
                            c->arguments);
    }
    return 0;
}

int hw_ctl_parse(int argc, const char *const *argv, struct hw_ctl_args *args, struct hw_error *e)
{
    struct parser p = {argc, argv, 1, args, e};
    bool flags_ended = false;
    int rc = 0;
    memset(args, 0, sizeof *args);
    while (p.at < argc && rc == 0) {
        const char *arg = argv[p.at];
        if (!flags_ended && strcmp(arg, "--") == 0) {
            flags_ended = true;
            p.at++;
        } else if (!flags_ended && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
            args->is_help = true;
            p.at++;
        } else if (!flags_ended && arg[0] == '-' && arg[1] != '\0') {
            rc = parse_flag(&p);
        } else {
            p.at++;
            rc = parse_word(&p, arg);
        }
    }
    if (args->is_help && (rc == 0 || args->command != NULL)) {
        return 0;
    }
    return rc != 0 ? rc : check_count(&p);
}

/* ---- what was given ---- */

static const struct hw_ctl_value *value_of(const struct hw_ctl_args *args, const char *name)
{
    int i = args->command != NULL ? find_flag(args->command->flags, name, strlen(name), '\0') : -1;
    if (i >= 0) {
        return &args->values[i];
    }
    i = find_flag(hw_ctl_globals, name, strlen(name), '\0');
    hw_assert(i >= 0);
    return &args->globals[i];
}

bool hw_ctl_is_set(const struct hw_ctl_args *args, const char *name)
{
    return value_of(args, name)->is_set;
}

int64_t hw_ctl_number(const struct hw_ctl_args *args, const char *name, int64_t otherwise)
{
    const struct hw_ctl_value *v = value_of(args, name);
    return v->is_set ? v->number : otherwise;
}

const char *hw_ctl_text(const struct hw_ctl_args *args, const char *name, const char *otherwise)
{
    const struct hw_ctl_value *v = value_of(args, name);
    return v->is_set && v->text != NULL ? v->text : otherwise;
}

const char *hw_ctl_word(const struct hw_ctl_args *args, unsigned i)
{
    return i < args->word_count ? args->words[i] : NULL;
}
