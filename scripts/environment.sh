# Sourced by the other scripts: makes or refreshes .venv beside this folder. Works as root and as an ordinary user,
# again and again, and in parallel clones.
#
#   make_environment EXTRA     EXTRA is "client", "test" or "bench"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
umask 022 # the host's own processes run under other uids and must be able to read their code

say() { printf '%s\n' "$*" >&2; }

need_package() { # PACKAGE WHY
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing $1 ($2) ..."
        { apt-get install -y -q "$1" >/dev/null 2>&1 || { apt-get update -q >/dev/null && apt-get install -y -q "$1" >/dev/null; }; } && return 0
    fi
    say "error: $2"
    say "  install it as root:   apt-get install $1"
    exit 1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

make_environment() {
    local extra=$1 python stamp wanted venv=$here/.venv
    if [ "$(uname -s)" != Linux ]; then
        say "error: airssys needs Linux (this is $(uname -s))"
        exit 1
    fi
    if ! python=$(find_python); then
        need_package python3 "no Python 3.11 or newer was found (set PYTHON=/path/to/python3 to name one)"
        python=$(find_python) || { say "error: python3 of this system is older than 3.11; set PYTHON=/path/to/python3"; exit 1; }
    fi
    "$python" -c 'import ctypes; ctypes.CDLL("libseccomp.so.2")' 2>/dev/null ||
        need_package libseccomp2 "libseccomp.so.2 is missing; it compiles the system-call filters"
    if [ ! -w "$here" ]; then
        say "error: $here cannot be written by you; the environment is made in it"
        say "  copy the checkout to a directory of your own, or run this as its owner"
        exit 1
    fi
    exec 9>"$here/.venv.lock"
    flock 9
    # By version, not by path: an activated environment or a shim names the same interpreter differently.
    wanted=$(cat "$here/pyproject.toml" <(echo "$extra $("$python" --version)") | sha256sum | cut -c1-16)
    stamp=$venv/.stamp-${extra:-run}
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            need_package "$([ "$python" = /usr/bin/python3 ] && echo python3-venv || echo "$(basename "$python")-venv")" \
                "the Python module venv is missing"
        [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$venv"
        say "Preparing .venv (once; downloads what is missing) ..."
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --editable "$here${extra:+[$extra]}" 2> >(grep -v '^WARNING: Location' >&2) ||
            { say "error: pip could not install the dependencies; its message is above"; exit 1; }
        "$venv/bin/python" -m compileall -q "$here/supervisor" "$here/bridge" "$here/sandbox" "$here/sdk" >/dev/null
        echo "$wanted" >"$stamp"
    fi
    if [ "$(id -u)" = 0 ]; then # a clone made under umask 077 is closed to the host's own uids
        chmod go+rx "$here"
        (cd "$here" && chmod -R go+rX .venv supervisor bridge sandbox sdk wit)
    fi
    flock -u 9
    exec 9>&-
}
