#!/usr/bin/env python3
"""Checks the style of the tree: what a reviewer would otherwise say again and again.

    tests/tidy/tidy.py              check the tree; findings as 'path:line: rule: sentence', exit 1 when there are any
    tests/tidy/tidy.py --canaries   check this script: every canary must trigger exactly its rule

A rule is a function at the end of this file with the decorator @rule. The tables that say what is allowed come first.
Each rule has at least one canary, tests/tidy/canaries/RULE/CASE.txt: files that begin with a line '== PATH' each;
'%repeat N TEXT' stands for N lines. The canary 'clean' must trigger nothing.
"""

import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CANARIES = "tests/tidy/canaries"
SKIPPED_DIRS = {".git", "build"}
PRODUCT = ("agent/", "storage/", "cli/")
OUR_FOLDERS = ("agent", "storage", "cli", "tests", "proto")

# ---- tables -------------------------------------------------------------------------------------------------------

# A folder includes lower layers and itself; equals never include each other. agent/main.c is in the folder "agent".
LAYERS = {
    "agent/base": 0,
    "agent/loop": 1,
    "agent/config": 1,
    "storage/hot": 1,
    "proto": 1,
    "storage/warm": 2,
    "agent/consensus": 2,
    "agent/http": 2,
    "agent/rpc": 2,
    "agent/replica": 3,
    "agent/cluster": 3,
    "agent/gateway": 3,
    "agent/service": 3,
    "agent/kube": 3,
    "agent/api": 4,
    "agent/node": 5,
    "agent": 6,
}
CLI_MAY_INCLUDE = ("agent/base", "agent/loop", "agent/rpc", "proto", "cli")
CLI_EXCEPTIONS = {"cli/snapshot_verify.c": "storage/warm"}  # a saved snapshot is checked by what reads images

LIBC = set(
    """assert.h ctype.h dirent.h endian.h errno.h fcntl.h ftw.h getopt.h inttypes.h libgen.h limits.h locale.h math.h
    netdb.h poll.h pthread.h pwd.h regex.h sched.h semaphore.h setjmp.h signal.h spawn.h stdarg.h stdatomic.h stdbool.h
    stddef.h stdint.h stdio.h stdlib.h stdnoreturn.h string.h strings.h syslog.h termios.h threads.h time.h unistd.h
    wchar.h wctype.h langinfo.h malloc.h glob.h fnmatch.h execinfo.h ucontext.h grp.h""".split()
)
LIBC_FOLDERS = ("sys/", "netinet/", "arpa/", "net/", "linux/", "bits/")

# Foreign headers: pattern, the files that may use it (patterns), and how many .c files at most. A file uses a header
# that it includes, also through a header of its own folder. Tests are exempt.
FOREIGN = [
    (r"raft\.h", [r"agent/consensus/\w+\.[ch]"], None),  # through impl.h, the only one that names it
    (r"raft/uv\.h", [r"agent/consensus/(life|transport)\.c"], 2),
    (r"uv\.h", [r"agent/loop/\w+\.[ch]", r"agent/consensus/(life|transport)\.c"], None),
    (r"dlfcn\.h", [r"agent/consensus/aio_reaper\.c"], 1),
    (r"openssl/.*", [r"agent/loop/\w+\.[ch]"], 2),
    (r"nghttp2/.*", [r"agent/rpc/\w+\.[ch]"], 2),
    (r"sqlite3\.h", [r"storage/warm/\w+\.[ch]"], 2),
    (r"http_parser\.h", [r"agent/http/\w+\.c"], 1),
    (r"yaml\.h", [r"agent/config/\w+\.c"], 1),
    (r"jansson\.h", [r"agent/api/\w+\.[ch]", r"cli/\w+\.[ch]"], None),
    (r"libsmartcols/.*", [r"cli/\w+\.[ch]"], None),
    (r"protobuf-c/.*", [r"agent/(rpc|http|replica|cluster|api|node)/\w+\.[ch]", r"cli/\w+\.[ch]"], None),
    (r"zlib\.h", [r"agent/(rpc|http)/\w+\.c", r"storage/warm/\w+\.c"], 1),
    (r"uthash\.h|xxhash\.h|bsd/sys/tree\.h", [r"(agent|storage|cli)/.*\.[ch]"], None),
]

FILE_LINES_MAX = {".c": 800, ".h": 250}
TEST_HEADER_LINES_MAX = 400  # a test's header may hold code
FUNCTION_LINES_MAX = 100
LINE_CHARS_MAX = {".py": 130, ".sh": 130}  # C is 120, as clang-format writes it

# name, where it is banned (PRODUCT or everywhere), what to use. One entry may list several names.
BANNED = [
    ("strcpy|strcat|sprintf|vsprintf|gets|stpcpy", PRODUCT, "has no bound; use snprintf or struct hw_buf"),
    ("strcpy|strcat|gets", ("tests/",), "has no bound; use snprintf"),
    ("strtok", ("",), "keeps hidden state; use strcspn or strtok_r"),
    ("atoi|atol|atoll", ("",), "cannot report an error; use strtoull and check it"),
    ("system", PRODUCT, "runs a shell; spawn the program itself"),
    ("sleep|usleep", PRODUCT, "stops the thread; use a timer of the loop or a condition with a deadline"),
    ("uv_queue_work", PRODUCT, "runs on libuv's default pool, which is libraft's; use a pool of agent/loop"),
    ("uv_getaddrinfo|uv_getnameinfo|uv_random", PRODUCT, "runs on libuv's default pool, which is libraft's"),
]

# Folders and files that need no unit tests of their own, each with the reason.
UNIT_TEST_EXCEPTIONS = {
    "agent/main.c": "reads arguments and starts the node; the integration tests run it",
    "cli/main.c": "hands the arguments to cli/app; the integration tests run it",
}
UNIT_DEPTH_MAX = 5  # tests/unit/agent/base/test_err.c: as deep as the wildcards of the Makefile look

CLANG_FORMAT_MAJOR = 14  # other versions format a few things otherwise

# ---- reading the tree ---------------------------------------------------------------------------------------------

LEXEMES = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)


def blank(text):
    return re.sub(r"[^\n]", " ", text)


class File:
    """A file, and for C: the code with comments blanked (`bare`), with strings blanked too (`code`), and comments."""

    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.lines = text.split("\n")
        self.folder = os.path.dirname(path)
        self.ext = os.path.splitext(path)[1]
        self.comments = []  # (line, text)
        self.bare = self.code = text
        if self.is_c():
            for m in LEXEMES.finditer(text):
                if m.group().startswith("/"):
                    self.comments.append((text.count("\n", 0, m.start()) + 1, m.group()))
            self.bare = LEXEMES.sub(lambda m: blank(m.group()) if m.group().startswith("/") else m.group(), text)
            self.code = LEXEMES.sub(lambda m: blank(m.group()), text)

    def is_c(self):
        return self.ext in (".c", ".h")

    def is_product(self):
        return self.path.startswith(PRODUCT)

    def includes(self):
        """(line, quoted, target) of every include."""
        for n, line in enumerate(self.bare.split("\n"), 1):
            m = re.match(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', line)
            if m:
                yield n, m.group(1) is not None, m.group(1) or m.group(2)

    def line_of(self, offset):
        return self.code.count("\n", 0, offset) + 1


class Tree:
    """Files by path. A canary is a tree of virtual files; `exists` then also sees the real ones."""

    def __init__(self, files, is_virtual):
        self.files = {f.path: f for f in files}
        self.is_virtual = is_virtual

    def all(self, *exts):
        return [f for p, f in sorted(self.files.items()) if not exts or f.ext in exts]

    def c_files(self):
        return self.all(".c", ".h")

    def exists(self, path):
        return path in self.files or os.path.exists(os.path.join(ROOT, path))


def read_tree():
    files = []
    for folder, dirs, names in os.walk(ROOT):
        rel = os.path.relpath(folder, ROOT)
        rel = "" if rel == "." else rel + "/"
        dirs[:] = sorted(d for d in dirs if d not in SKIPPED_DIRS and rel + d != CANARIES and not d.startswith("__"))
        for name in sorted(names):
            ext = os.path.splitext(name)[1]
            if ext in (".c", ".h", ".md", ".py", ".sh", ".proto", ".yaml", ".yml") or name == "Makefile":
                with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as f:
                    files.append(File(rel + name, f.read()))
    return Tree(files, False)


# ---- rules --------------------------------------------------------------------------------------------------------

RULES = {}


def rule(name):
    def register(fn):
        RULES[name] = fn
        return fn

    return register


def layer_of(folder):
    return LAYERS.get(folder)


@rule("include")
def check_include(tree):
    """Quoted includes are paths from the root, so that each shows its layer."""
    for f in tree.c_files():
        for n, is_quoted, target in f.includes():
            if not is_quoted:
                if target.split("/")[0] in OUR_FOLDERS:
                    yield f.path, n, f'<{target}> is ours; include it with quotes'
                continue
            m = re.match(r"(proto/\w+)\.pb-c\.h$", target)
            source = m.group(1) + ".proto" if m else target
            if target.startswith(("./", "../")) or "/../" in target or "/" not in target:
                yield f.path, n, f'"{target}" is no path from the root; write "folder/.../file.h"'
            elif not tree.exists(source):
                yield f.path, n, f'"{target}" is no file of the tree (from the root)'


@rule("layer")
def check_layer(tree):
    """Lower layers and the own folder only; equals never include each other; nothing includes tests."""
    for f in tree.c_files():
        if f.path.startswith("tests/"):
            continue
        if f.folder != "cli" and layer_of(f.folder) is None:
            yield f.path, 1, f"the folder {f.folder} has no layer; add it to LAYERS in tests/tidy/tidy.py"
            continue
        for n, is_quoted, target in f.includes():
            folder = os.path.dirname(target)
            if not is_quoted or folder == f.folder or target.split("/")[0] not in OUR_FOLDERS:
                continue
            if target.startswith("tests/"):
                yield f.path, n, "nothing outside tests/ includes tests"
            elif re.search(r"(^|_|/)(impl|private)\.h$", target):
                yield f.path, n, f'"{target}" is private to {folder}'
            elif f.folder == "cli":
                if folder not in CLI_MAY_INCLUDE and CLI_EXCEPTIONS.get(f.path) != folder:
                    yield f.path, n, f"cli may include {', '.join(CLI_MAY_INCLUDE)}, not {folder}"
            elif folder == "cli" or layer_of(folder) is None:
                yield f.path, n, f"{f.folder} may not include {folder or target}"
            elif layer_of(folder) >= layer_of(f.folder):
                word = "an equal" if layer_of(folder) == layer_of(f.folder) else "a higher"
                yield f.path, n, (f"{f.folder} (layer {layer_of(f.folder)}) includes {folder}, "
                                  f"{word} layer ({layer_of(folder)})")


def foreign_uses(tree):
    """For each .c and .h of the product: {foreign header: line}, also through headers of the same folder."""
    direct = {}
    for f in tree.c_files():
        if f.is_product():
            direct[f.path] = ({t: n for n, q, t in f.includes() if not q},
                              [(n, t) for n, q, t in f.includes() if q and os.path.dirname(t) == f.folder])
    uses = {}
    for path, (headers, _) in direct.items():
        found = dict(headers)
        seen = {path}
        waiting = list(direct[path][1])
        while waiting:
            n, header = waiting.pop()
            if header in seen or header not in direct:
                continue
            seen.add(header)
            for t in direct[header][0]:
                found.setdefault(t, n)
            waiting += [(n, t) for _, t in direct[header][1]]
        uses[path] = found
    return uses


@rule("foreign-header")
def check_foreign_header(tree):
    """A foreign library's header is used in one or two named files, so that the library can be changed there."""
    users = {pattern: set() for pattern, _, _ in FOREIGN}
    for path, headers in foreign_uses(tree).items():
        for header, n in sorted(headers.items()):
            if header in LIBC or header.startswith(LIBC_FOLDERS):
                continue
            entry = next((e for e in FOREIGN if re.fullmatch(e[0], header)), None)
            if entry is None:
                if header.split("/")[0] not in OUR_FOLDERS:
                    yield path, n, f"<{header}> is in no table of tests/tidy/tidy.py: say in FOREIGN who may use it"
                continue
            pattern, allowed, files_max = entry
            if not any(re.fullmatch(a, path) for a in allowed):
                yield path, n, f"<{header}> may only be used in {', '.join(allowed)}"
            elif path.endswith(".c") and files_max is not None:
                users[pattern].add(path)
                if len(users[pattern]) == files_max + 1:
                    yield path, n, (f"<{header}> is used in more than {files_max} .c file(s): "
                                    f"{', '.join(sorted(users[pattern]))}")


@rule("file-length")
def check_file_length(tree):
    for f in tree.c_files():
        lines = f.text.count("\n")
        is_test_header = f.ext == ".h" and f.path.startswith("tests/")
        lines_max = TEST_HEADER_LINES_MAX if is_test_header else FILE_LINES_MAX[f.ext]
        if lines > lines_max:
            yield f.path, lines, f"{lines} lines; at most {lines_max}: split it by its nouns"


@rule("function-length")
def check_function_length(tree):
    """A function begins with a brace on a line of its own in the first column."""
    for f in tree.c_files():
        begin = None
        for n, line in enumerate(f.code.split("\n"), 1):
            if line.rstrip() == "{":
                begin = n
            elif line.startswith("}") and begin is not None:
                if n - begin + 1 > FUNCTION_LINES_MAX:
                    yield f.path, begin, f"a function of {n - begin + 1} lines; at most {FUNCTION_LINES_MAX}"
                begin = None


def arguments(code, start):
    """The arguments of a call, from the offset of its opening parenthesis; None when it does not close."""
    depth = 0
    args = [""]
    for ch in code[start:]:
        if ch in "([{":
            depth += 1
        elif ch in ")]}":
            depth -= 1
            if depth == 0:
                return [a.strip() for a in args]
        if ch == "," and depth == 1:
            args.append("")
        elif depth > 1 or (depth == 1 and ch != "("):
            args[-1] += ch
    return None


@rule("banned")
def check_banned(tree):
    for f in tree.c_files():
        for names, where, why in BANNED:
            if not f.path.startswith(where):
                continue
            for m in re.finditer(rf"(?<![\w.>])({names})\s*\(", f.code):
                yield f.path, f.line_of(m.start()), f"{m.group(1)} {why}"
        if not f.is_product():
            continue
        for m in re.finditer(r"(?<![\w.>])(uv_fs_\w+)\s*\(", f.code):
            args = arguments(f.code, m.end() - 1)
            if m.group(1) not in ("uv_fs_req_cleanup", "uv_fs_get_result") and args and args[-1] != "NULL" \
                    and not m.group(1).startswith(("uv_fs_event", "uv_fs_poll", "uv_fs_get")):
                yield f.path, f.line_of(m.start()), (f"{m.group(1)} with a callback runs on libuv's default pool, "
                                                     "which is libraft's")


@rule("macro-flow")
def check_macro_flow(tree):
    """A macro that leaves its caller cannot be seen there. Lists (X) are fine."""
    for f in tree.c_files():
        if not f.is_product():
            continue
        for m in re.finditer(r"^[ \t]*#[ \t]*define[ \t]+(\w+)((?:[^\n]*\\\n)*[^\n]*)", f.code, re.M):
            word = re.search(r"\b(return|goto|break|continue)\b", m.group(2))
            if word and not re.fullmatch(r"_?X\w{0,2}_?", m.group(1)):
                yield f.path, f.line_of(m.start()), f"the macro {m.group(1)} contains '{word.group(1)}'"


TYPES = r"(?:(?:const|static|struct \w+|unsigned|int|char|void|size_t|bool|u?int\d+_t|double|long)\s*\**\s*)*"
DEAD_CODE = [
    re.compile(rf"{TYPES}[\w.\[\]>-]+(?:\s*[-+|&^*/%]?=\s*[^=\s].*|\(.*\));"),
    re.compile(r"return\b[^.]*;|break;|continue;|goto \w+;"),
    re.compile(r"(?:\} )?(?:if|for|while|switch|else)\b.*\{"),
    re.compile(r"#\s*(?:include|define|if|ifdef|endif)\b.*"),
    re.compile(r"[{}]"),
]


@rule("dead-code")
def check_dead_code(tree):
    """Code in comments. Indented lines of a block comment are examples, and stay."""
    for f in tree.c_files():
        for start, text in f.comments:
            is_block = text.startswith("/*")
            body = text[2:-2] if is_block else text[2:]
            for i, line in enumerate(body.split("\n")):
                line = re.sub(r"^\s*\*", "", line) if i > 0 else line
                if is_block and line.startswith("     "):
                    continue
                if any(p.fullmatch(line.strip()) for p in DEAD_CODE):
                    yield f.path, start + i, f"this looks like commented-out code: {line.strip()[:60]}"
                    break
        for m in re.finditer(r"^[ \t]*#[ \t]*if[ \t]+0\b", f.code, re.M):
            yield f.path, f.line_of(m.start()), "#if 0: remove the code, history keeps it"


@rule("marker")
def check_marker(tree):
    for f in tree.all():
        if f.path == "tests/tidy/tidy.py":
            continue
        for n, line in enumerate(f.lines, 1):
            m = re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line)
            if m:
                yield f.path, n, f"{m.group(1)}: do it, or write what is open as 'OPEN:' with the question"


@rule("tab")
def check_tab(tree):
    for f in tree.c_files():
        for n, line in enumerate(f.lines, 1):
            if "\t" in line:
                yield f.path, n, "a tab; indentation is four spaces"


@rule("trailing-space")
def check_trailing_space(tree):
    for f in tree.all():
        for n, line in enumerate(f.lines, 1):
            if line != line.rstrip():
                yield f.path, n, "space at the end of the line"
        if f.text and not f.text.endswith("\n"):
            yield f.path, len(f.lines), "no newline at the end of the file"
        elif f.text.endswith("\n\n"):
            yield f.path, len(f.lines) - 1, "an empty line at the end of the file"


@rule("line-length")
def check_line_length(tree):
    for f in tree.all(".c", ".h", ".py", ".sh", ".proto"):
        for n, line in enumerate(f.lines, 1):
            chars_max = LINE_CHARS_MAX.get(f.ext, 120)
            if len(line) > chars_max:
                yield f.path, n, f"{len(line)} characters; at most {chars_max}"


@rule("unit-test")
def check_unit_test(tree):
    """Every folder with code has unit tests in its mirror below tests/unit."""
    tested = {os.path.dirname(p)[len("tests/unit/"):] for p in tree.files
              if re.fullmatch(r"tests/unit/.*/test_\w+\.c", p)}
    said = set()
    for f in tree.all(".c"):
        if not f.is_product() or f.folder in tested or f.folder in said:
            continue
        if f.path in UNIT_TEST_EXCEPTIONS or f.folder in UNIT_TEST_EXCEPTIONS:
            continue
        said.add(f.folder)
        yield f.path, 1, f"{f.folder} has no unit tests (tests/unit/{f.folder}/test_*.c)"


@rule("suite")
def check_suite(tree):
    """A test file that registers no suite, or one that is not built, tests nothing."""
    names = {}
    for f in tree.all(".c"):
        if not re.fullmatch(r"tests/unit/(.*/)?test_\w+\.c", f.path):
            continue
        suites = list(re.finditer(r"^HW_SUITE\(\s*(\w+)", f.code, re.M))
        if len(suites) != 1:
            yield f.path, 1, f"{len(suites)} HW_SUITE in the file; one registers its cases"
            continue
        line = f.line_of(suites[0].start())
        name = suites[0].group(1)
        if name in names:
            yield f.path, line, f"the suite {name} is also in {names[name]}"
        names.setdefault(name, f.path)
        if f.path.count("/") + 1 > UNIT_DEPTH_MAX:
            yield f.path, 1, "deeper than the Makefile looks for tests: it would not be built"


def slug(heading):
    """The anchor that a heading gets when the page is shown."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def prose(f):
    """Lines of a Markdown file with code blocks and code spans blanked."""
    is_code = False
    for n, line in enumerate(f.lines, 1):
        if re.match(r"\s*(```|~~~)", line):
            is_code = not is_code
            continue
        if not is_code:
            yield n, line


@rule("link")
def check_link(tree):
    for f in tree.all(".md"):
        for n, line in prose(f):
            for m in re.finditer(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)", re.sub(r"`[^`]*`", "", line)):
                target, _, anchor = m.group(1).partition("#")
                if re.match(r"[a-z]+:", target):
                    continue
                path = os.path.normpath(os.path.join(f.folder, target)) if target else f.path
                if target and (path.startswith("..") or not tree.exists(path)):
                    yield f.path, n, f"the link {m.group(1)} leads nowhere"
                    continue
                page = tree.files.get(path)
                if anchor and page is not None and page.ext == ".md":
                    anchors = {slug(re.sub(r"^#+", "", h)) for _, h in prose(page) if h.startswith("#")}
                    if anchor not in anchors:
                        yield f.path, n, f"{path} has no heading for #{anchor}"


def clang_format():
    """The program, or the reason why there is none."""
    program = shutil.which(f"clang-format-{CLANG_FORMAT_MAJOR}") or shutil.which("clang-format")
    if program is None:
        return None, "clang-format is not installed"
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    m = re.search(r"version (\d+)", words)
    if not m or int(m.group(1)) != CLANG_FORMAT_MAJOR:
        return None, f"{words.strip() or program} is not version {CLANG_FORMAT_MAJOR}"
    return program, None


@rule("format")
def check_format(tree):
    program, _ = clang_format()
    paths = [f.path for f in tree.c_files()]
    if program is None or not paths:
        return
    if tree.is_virtual:
        for f in tree.c_files():
            out = subprocess.run([program, "--style=file", f"--assume-filename={os.path.join(ROOT, f.path)}"],
                                 input=f.text, capture_output=True, text=True, check=False, cwd=ROOT).stdout
            if out != f.text:
                same = os.path.commonprefix([out, f.text])
                yield f.path, same.count("\n") + 1, "not as clang-format writes it; run make fmt"
        return
    out = subprocess.run([program, "--dry-run", "-Werror", "--style=file"] + paths, capture_output=True, text=True,
                         check=False, cwd=ROOT).stderr
    said = set()
    for m in re.finditer(r"^([^\s:]+):(\d+):\d+: error:", out, re.M):
        if m.group(1) not in said:  # the first place tells enough: one command mends them all
            said.add(m.group(1))
            yield m.group(1), int(m.group(2)), "not as clang-format writes it; run make fmt"


# ---- running ------------------------------------------------------------------------------------------------------


def findings_of(tree):
    found = []
    for name, check in RULES.items():
        found += [(path, line, name, sentence) for path, line, sentence in check(tree)]
    return sorted(found)


def check_tree():
    tree = read_tree()
    found = findings_of(tree)
    for path, line, name, sentence in found:
        print(f"{path}:{line}: {name}: {sentence}")
    program, reason = clang_format()
    if program is None:
        print(f"tidy: format: skipped, {reason}")
    print(f"tidy: {len(tree.files)} files, {len(found)} findings")
    return 1 if found else 0


def read_canary(path, name):
    files = {}
    lines = None
    with open(path, encoding="utf-8") as f:
        for line in f.read().split("\n"):
            repeat = re.match(r"%repeat (\d+) (.*)", line)
            if line.startswith("== "):
                lines = files.setdefault(line[3:].strip(), [])
            elif repeat:
                lines += [repeat.group(2)] * int(repeat.group(1))
            elif lines is not None:
                lines.append(line)
    tree = [File(p, "\n".join(text) if text[-1] == "" else "\n".join(text) + "\n") for p, text in files.items()]
    # Other rules than its own must have nothing to say, so every folder gets a test file.
    if name != "unit-test":
        for i, folder in enumerate(sorted({f.folder for f in tree if f.is_product()})):
            tree.append(File(f"tests/unit/{folder}/test_stub.c", f"HW_SUITE(stub_{i}, HW_CASE(stub))\n"))
    return Tree(tree, True)


def check_canaries():
    caught = missed = 0
    folder = os.path.join(ROOT, CANARIES)
    have = sorted(os.listdir(folder))
    for name in sorted(set(RULES) | set(have)):
        cases = sorted(os.listdir(os.path.join(folder, name))) if name in have else []
        if not cases or (name not in RULES and name != "clean"):
            print(f"{CANARIES}/{name}:1: canary: " + ("no such rule" if cases else "the rule has no canary"))
            missed += 1
            continue
        if name == "format" and clang_format()[0] is None:
            print(f"tidy: canaries of format: skipped, {clang_format()[1]}")
            continue
        for case in cases:
            found = findings_of(read_canary(os.path.join(folder, name, case), name))
            expected = [] if name == "clean" else [name]
            if [rule_name for _, _, rule_name, _ in found] == expected:
                caught += 1
                continue
            missed += 1
            print(f"{CANARIES}/{name}/{case}:1: canary: expected {expected or 'nothing'}, found {len(found)}:")
            for path, line, rule_name, sentence in found:
                print(f"    {path}:{line}: {rule_name}: {sentence}")
    print(f"tidy: {caught} canaries caught, {missed} missed")
    return 1 if missed or not caught else 0


def main():
    if sys.argv[1:] == ["--canaries"]:
        return check_canaries()
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    return check_tree()


if __name__ == "__main__":
    sys.exit(main())
