#!/usr/bin/env bash
# Installs what HotWarm needs to build, test and run on Debian 12 (bookworm) and newer.
# Idempotent: says what it does, does nothing when everything is there.
#
#   deploy/deps.sh            install what is missing
#   deploy/deps.sh --check    only say what is missing; exit 1 if something is
#   deploy/deps.sh --list     print the packages, one a line
set -euo pipefail

RAFT_MIN=0.22

packages_build=(gcc make pkg-config libc6-dev libuv1-dev libsqlite3-dev libnghttp2-dev libhttp-parser-dev
    libyaml-dev libjansson-dev libprotobuf-c-dev protobuf-c-compiler libxxhash-dev uthash-dev
    libsmartcols-dev zlib1g-dev libbsd-dev)
packages_test=(libcunit1-dev etcd-client curl jq python3 valgrind clang libclang-rt-14-dev clang-format iproute2 procps
    python3-etcd3 faketime)
# Names that differ between releases: the first that the release knows is taken.
alternatives_test=("libclang-rt-14-dev libclang-rt-19-dev libclang-rt-dev")

say() { printf 'deps: %s\n' "$*"; }

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
known() { [ -n "$(apt-cache madison "$1" 2>/dev/null)" ]; }

raft_version() { dpkg-query -W -f='${Version}' libraft-dev 2>/dev/null || true; }
raft_is_new_enough() {
    local v
    v=$(raft_version)
    [ -n "$v" ] && dpkg --compare-versions "$v" ge "$RAFT_MIN"
}

resolve_packages() {
    local p alt candidates chosen
    for p in "${packages_build[@]}" "${packages_test[@]}"; do
        chosen=$p
        for alt in "${alternatives_test[@]}"; do
            read -r -a candidates <<<"$alt"
            [ "${candidates[0]}" = "$p" ] || continue
            for chosen in "${candidates[@]}"; do
                if installed "$chosen" || known "$chosen"; then break; fi
            done
        done
        printf '%s\n' "$chosen"
    done
}

missing() {
    local p
    while read -r p; do installed "$p" || printf '%s\n' "$p"; done < <(resolve_packages)
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo "$@"
    else
        say "root is needed. Run this and start again:" >&2
        printf '\n    sudo %s\n\n' "$(readlink -f "${BASH_SOURCE[0]}")" >&2
        exit 1
    fi
}

# The address of the Debian archive that this machine already uses, as apt itself reads its sources.
mirror() {
    apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT) $(CREATED_BY)' 2>/dev/null |
        awk -v r="$1" '$2 == r && $3 == "main" && $4 == "Packages" {print $1; exit}'
}

add_backports() {
    local codename site keyring list=/etc/apt/sources.list.d/hotwarm-backports.sources
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    site=$(mirror "$codename")
    if [ -z "$site" ]; then
        say "no Debian archive for '$codename' is configured in /etc/apt, so libraft >= $RAFT_MIN cannot be found." >&2
        say "Add a Debian mirror to /etc/apt/sources.list.d, then run this again." >&2
        exit 1
    fi
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    say "adding the suite $codename-backports of the mirror in use ($list)"
    as_root tee "$list" >/dev/null <<SOURCES
Types: deb
URIs: $site
Suites: $codename-backports
Components: main
Signed-By: $keyring
SOURCES
    as_root apt-get -q update
}

install_raft() {
    local codename
    if raft_is_new_enough; then
        say "libraft-dev $(raft_version) is there"
        return
    fi
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    local best
    best=$(apt-cache madison libraft-dev | awk '{print $3}' | head -1)
    if [ -z "$best" ] || ! dpkg --compare-versions "$best" ge "$RAFT_MIN"; then
        if ! apt-cache madison libraft-dev | grep -q "$codename-backports"; then add_backports; fi
        say "installing libraft-dev from $codename-backports"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
            -t "$codename-backports" libraft-dev
    else
        say "installing libraft-dev $best"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends libraft-dev
    fi
    raft_is_new_enough || { say "libraft-dev is $(raft_version), but $RAFT_MIN or newer is needed" >&2; exit 1; }
}

main() {
    if ! command -v apt-get >/dev/null 2>&1; then
        say "this script installs Debian packages, and apt-get is not here." >&2
        say "Install the equivalents of: libraft-dev (>= $RAFT_MIN) ${packages_build[*]} ${packages_test[*]}" >&2
        exit 1
    fi
    case "${1:-}" in
    --list) resolve_packages; echo libraft-dev; exit 0 ;;
    --check)
        local absent
        absent=$(missing)
        if [ -z "$absent" ] && raft_is_new_enough; then exit 0; fi
        raft_is_new_enough || absent="$absent libraft-dev(>=$RAFT_MIN)"
        say "missing:" $absent "(run deploy/deps.sh)" >&2
        exit 1
        ;;
    "") ;;
    *) say "unknown argument '$1'; known: --check, --list" >&2; exit 2 ;;
    esac

    local absent
    absent=$(missing)
    if [ -z "$absent" ] && raft_is_new_enough; then
        say "everything is installed (libraft-dev $(raft_version))"
        exit 0
    fi
    # Package lists may be absent on a fresh machine: fetch them once.
    as_root apt-get -q update
    absent=$(missing)
    if [ -n "$absent" ]; then
        say "installing:" $absent
        # shellcheck disable=SC2086
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $absent
    fi
    install_raft
    say "done (libraft-dev $(raft_version))"
}

main "$@"
