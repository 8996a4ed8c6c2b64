#include "cli/help.h"

#include <string.h>

#include "cli/app.h"

#define FLAG_WIDTH 39
#define COMMAND_WIDTH 39

static const char endpoints_text[] =
    "hwctl asks the endpoints in the order given, beginning with the one that answered last. A read goes on to the "
    "next\n"
    "endpoint when one is dead, silent or unavailable. A write goes on only when it surely was not applied; otherwise\n"
    "hwctl says that the outcome is unknown. What was skipped, and why, is said on stderr.\n";

static const char config_text[] =
    "Settings come from the flag, else the environment (HWCTL_ENDPOINTS), else the configuration file, else the "
    "default.\n"
    "The file is --config FILE, $XDG_CONFIG_HOME/hwctl/config or ~/.config/hwctl/config, with lines like these:\n";
static const char config_example[] = "endpoints=10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379\n"
                                     "output=json\n"
                                     "timeout_ms=2000\n";

struct exit_line {
    int code;
    const char *text;
};

static const struct exit_line exit_lines[] = {
    {0, "done"},
    {1, "hash: nodes differ at one revision"},
    {2, "the command line or an argument is wrong, or too large"},
    {3, "unavailable: no answer in time, no connection, or the outcome is unknown"},
    {4, "a condition does not hold: not found, already there, compacted, refused by precondition"},
    {5, "permission denied"},
    {6, "exhausted: a limit, a queue or a disk is full, or the cluster asked to try again"},
    {7, "data: damaged, foreign, locked or of a newer format, or an input/output error"},
    {70, "internal error of hwctl or of the agent"},
    {130, "interrupted (Ctrl-C)"},
};

static void flag_left(char *buf, size_t size, const struct hw_ctl_flag *f)
{
    int used =
        f->letter != '\0' ? snprintf(buf, size, "-%c, --%s", f->letter, f->name) : snprintf(buf, size, "--%s", f->name);
    if (f->value != NULL && (size_t)used < size) {
        snprintf(buf + used, size - (size_t)used, f->is_optional ? " [%s]" : " %s", f->value);
    }
}

static void print_flags(FILE *out, const struct hw_ctl_flag *flags)
{
    for (const struct hw_ctl_flag *f = flags; f != NULL && f->name != NULL; f++) {
        char left[96];
        flag_left(left, sizeof left, f);
        fprintf(out, "  %-*s %s\n", FLAG_WIDTH, left, f->help);
    }
}

static void print_command_line(FILE *out, const struct hw_ctl_command *c)
{
    char left[96];
    snprintf(left, sizeof left, "%s%s%s", c->name, *c->arguments != '\0' ? " " : "", c->arguments);
    fprintf(out, "  %-*s %s\n", COMMAND_WIDTH, left, c->help);
}

void hw_ctl_help_overview(FILE *out)
{
    fprintf(out,
            "hwctl: operate a HotWarm cluster.\n\nUsage: hwctl [FLAGS] COMMAND [ARGUMENTS] [FLAGS]\n\nCommands:\n");
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        print_command_line(out, c);
    }
    fprintf(out, "\nFlags of every command:\n");
    print_flags(out, hw_ctl_globals);
    fprintf(out, "  %-*s %s\n", FLAG_WIDTH, "-h, --help", "help for a command");
    fprintf(out, "\nExit codes:\n");
    for (size_t i = 0; i < sizeof exit_lines / sizeof exit_lines[0]; i++) {
        fprintf(out, "  %3d  %s\n", exit_lines[i].code, exit_lines[i].text);
    }
    fprintf(out, "\n'hwctl help COMMAND' says more; 'hwctl help --reference' prints everything.\n");
}

static void print_command(FILE *out, const struct hw_ctl_command *c)
{
    fprintf(out, "hwctl %s: %s.\n\nUsage: hwctl %s%s%s [FLAGS]\n", c->name, c->help, c->name,
            *c->arguments != '\0' ? " " : "", c->arguments);
    if (c->details != NULL) {
        fprintf(out, "\n%s", c->details);
    }
    if (c->flags != NULL) {
        fprintf(out, "\nFlags:\n");
        print_flags(out, c->flags);
    }
    fprintf(out, "\nFlags of every command:\n");
    print_flags(out, hw_ctl_globals);
    if (c->json != NULL) {
        fprintf(out, "\nJSON (-o json):\n%s", c->json);
    }
    fprintf(out, "\nExamples:\n");
    for (const char *const *x = c->examples; *x != NULL; x++) {
        fprintf(out, "  hwctl %s\n", *x);
    }
}

void hw_ctl_help_for(FILE *out, const struct hw_ctl_command *command, const char *group)
{
    if (command != NULL) {
        print_command(out, command);
        return;
    }
    if (group == NULL) {
        hw_ctl_help_overview(out);
        return;
    }
    fprintf(out, "Usage: hwctl %s COMMAND\n\nCommands:\n", group);
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        if (strncmp(c->name, group, strlen(group)) == 0 && c->name[strlen(group)] == ' ') {
            print_command_line(out, c);
        }
    }
}

/* ---- reference page (Markdown) ---- */

static void reference_flags(FILE *out, const struct hw_ctl_flag *flags)
{
    fprintf(out, "| flag | meaning |\n| --- | --- |\n");
    for (const struct hw_ctl_flag *f = flags; f->name != NULL; f++) {
        char left[96];
        flag_left(left, sizeof left, f);
        fputs("| `", out);
        for (const char *p = left; *p != '\0'; p++) {
            fprintf(out, *p == '|' ? "\\%c" : "%c", *p);
        }
        fprintf(out, "` | %s |\n", f->help);
    }
}

static void reference_block(FILE *out, const char *text)
{
    fprintf(out, "```text\n%s```\n", text);
}

static void reference_command(FILE *out, const struct hw_ctl_command *c)
{
    fprintf(out, "\n## hwctl %s\n\n%s.\n\n```sh\nhwctl %s%s%s\n```\n", c->name, c->help, c->name,
            *c->arguments != '\0' ? " " : "", c->arguments);
    if (c->details != NULL) {
        fputs("\n", out);
        reference_block(out, c->details);
    }
    if (c->flags != NULL) {
        fputs("\n", out);
        reference_flags(out, c->flags);
    }
    if (c->json != NULL) {
        fprintf(out, "\nFields of `-o json`:\n\n");
        reference_block(out, c->json);
    }
    fprintf(out, "\nExamples:\n\n```sh\n");
    for (const char *const *x = c->examples; *x != NULL; x++) {
        fprintf(out, "hwctl %s\n", *x);
    }
    fprintf(out, "```\n");
}

void hw_ctl_help_reference(FILE *out)
{
    fprintf(out,
            "# hwctl\n\nThe operator's command of HotWarm. This page is printed by `hwctl help --reference`; a unit\n"
            "test compares the two.\n\n```sh\nhwctl [FLAGS] COMMAND [ARGUMENTS] [FLAGS]\n```\n\n"
            "## Flags of every command\n\n");
    reference_flags(out, hw_ctl_globals);
    fprintf(out,
            "\nFlags may stand before or after the command; those of one command only after its name. `--` ends\n"
            "them, for keys that begin with a dash.\n\n## Endpoints\n\n%s\n## Configuration\n\n%s\n```ini\n%s```\n\n",
            endpoints_text, config_text, config_example);
    fprintf(out,
            "## Errors and exit codes\n\nEvery error is one line on stderr, `hwctl: <what failed>: <why>. <next "
            "step>`, followed by one line\nper endpoint when none answered.\n\n| exit | meaning |\n| ---: | --- |\n");
    for (size_t i = 0; i < sizeof exit_lines / sizeof exit_lines[0]; i++) {
        fprintf(out, "| %d | %s |\n", exit_lines[i].code, exit_lines[i].text);
    }
    fprintf(out, "\n## Output\n\nTables are for people and may change. `-o json` prints one object on one line (with "
                 "`status --watch`, one line\nper round), and its names are stable: new ones may be added. Keys and "
                 "values are base64, 64-bit identities and\nhashes are hexadecimal strings, times are milliseconds.\n");
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        reference_command(out, c);
    }
}

/* ---- bash completion ---- */

static void completion_flags(FILE *out, const struct hw_ctl_flag *flags)
{
    for (const struct hw_ctl_flag *f = flags; f != NULL && f->name != NULL; f++) {
        fprintf(out, " --%s", f->name);
    }
}

/* First words, each once; the table keeps the commands of a group together. */
static void completion_words(FILE *out)
{
    const char *last = "";
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        size_t len = strcspn(c->name, " ");
        if (strncmp(last, c->name, len) != 0 || strcspn(last, " ") != len) {
            fprintf(out, " %.*s", (int)len, c->name);
        }
        last = c->name;
    }
}

static void completion_groups(FILE *out)
{
    const char *last = "";
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        size_t len = strcspn(c->name, " ");
        if (c->name[len] == '\0') {
            continue;
        }
        if (strncmp(last, c->name, len + 1) != 0) {
            fprintf(out, "%s        \"%.*s\") words=\"", *last != '\0' ? "\" ;;\n" : "", (int)len, c->name);
        } else {
            fputc(' ', out);
        }
        fputs(c->name + len + 1, out);
        last = c->name;
    }
    if (*last != '\0') {
        fputs("\" ;;\n", out);
    }
}

void hw_ctl_help_completion(FILE *out)
{
    fprintf(out, "# bash completion of hwctl; put it in place with:  source <(hwctl completion)\n"
                 "_hwctl() {\n"
                 "    local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
                 "    local words=\"\" flags=\"--help\" name=\"\" word i\n"
                 "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                 "        word=\"${COMP_WORDS[i]}\"\n"
                 "        case \"$word\" in\n"
                 "        -o|--output|--endpoints|--timeout|--config) ((i++)) ;;\n"
                 "        -*) ;;\n"
                 "        *) if [[ -z $name ]]; then name=\"$word\"; else name=\"$name $word\"; fi ;;\n"
                 "        esac\n"
                 "    done\n"
                 "    case \"$previous\" in\n"
                 "    -o|--output) words=\"table json plain\" ;;\n"
                 "    --config|-f|--file) COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n"
                 "    *)\n"
                 "        case \"$name\" in\n"
                 "        \"\") words=\"");
    completion_words(out);
    fprintf(out, "\" ;;\n");
    completion_groups(out);
    for (const struct hw_ctl_command *c = hw_ctl_commands; c->name != NULL; c++) {
        fprintf(out, "        \"%s\"*) flags+=\"", c->name);
        completion_flags(out, c->flags);
        if (strncmp(c->name, "snapshot", 8) == 0) {
            fputs("\"; COMPREPLY=($(compgen -f -- \"$current\")", out);
            fputs("); [[ $current != -* ]] && return ;;\n", out);
        } else {
            fputs("\" ;;\n", out);
        }
    }
    fprintf(out, "        esac\n        flags+=\"");
    completion_flags(out, hw_ctl_globals);
    fprintf(out, "\" ;;\n"
                 "    esac\n"
                 "    [[ $current == -* ]] && words=\"$flags\"\n"
                 "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
                 "}\n"
                 "complete -F _hwctl hwctl\n");
}
