# shellcheck shell=bash
# What the scripts beside this one share: a .venv that is ready. Source it, then call `bootstrap`.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

say() { printf '==> %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# bootstrap EXTRA[,EXTRA]: make .venv hold this checkout with those extras. Costs a few
# milliseconds when it does already. Safe to run twice at once and after an interruption.
bootstrap() {
    local extras=$1 stamp=$venv/.ready-${1//,/-} lock
    is_ready "$stamp" && return
    [[ -w $root ]] || die "$(id -un) may not write to $root, where .venv is to be"
    exec {lock}<"$root"
    flock --nonblock "$lock" || {
        say "Waiting for another set-up of $venv"
        flock "$lock"
    }
    is_ready "$stamp" || set_up "$extras" "$stamp"
    exec {lock}<&-
}

# What an installation depends on. The path is part of it, because .venv/bin is bound to it.
fingerprint() {
    "$venv/bin/python" -ISc 'import sys; print(sys.version)' &&
        { printf '%s\n' "$root" && cat "$root/setup.cfg" "$root/pyproject.toml"; } | sha256sum
}

# is_ready STAMP: the stamps of extras and more extras begin alike, and either will do.
is_ready() {
    local stamp now
    [[ -x $venv/bin/twistd && ! -e $venv/.unfinished ]] && now=$(fingerprint) || return 1
    for stamp in "$1"*; do
        [[ -f $stamp && $now == "$(<"$stamp")" ]] && return
    done
    return 1
}

set_up() {
    local extras=$1 stamp=$2
    if [[ -e $venv/.unfinished ]]; then
        say "The last set-up did not finish: beginning anew"
        discard_venv
    elif [[ -e $venv ]] && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        say "$venv does not work any more: beginning anew"
        discard_venv
    fi
    [[ -e $venv ]] || make_venv
    touch "$venv/.unfinished"
    say "Installing Python packages for Matrix [$extras] (a minute or two the first time)"
    PIP_USER=0 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-input --use-pep517 --editable "${root}[$extras]" >&2 ||
        die "pip could not install Matrix's packages (see above); run this again to retry"
    fingerprint >"$stamp.new"
    mv "$stamp.new" "$stamp"
    rm "$venv/.unfinished"
}

# Renamed first: what an interrupted removal leaves is never taken for a .venv.
discard_venv() {
    rm -rf "$venv.discarded"
    mv "$venv" "$venv.discarded"
    rm -rf "$venv.discarded"
}

make_venv() {
    local python
    python=$(find_python) || {
        install_debian python3 python3-venv
        python=$(find_python) || die "Matrix needs Python 3.11 or newer; set PYTHON to its path"
    }
    # Debian splits the part of venv that installs pip into a package of its own.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_debian "$(venv_package "$python")"
    say "Making $venv with $("$python" --version)"
    mkdir "$venv"
    touch "$venv/.unfinished"
    "$python" -m venv "$venv"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.{14,13,12,11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

venv_package() {
    "$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
}

# install_debian PACKAGE...: by root through apt; anybody else is told what to run.
install_debian() {
    command -v apt-get >/dev/null || die "missing on this system: $*"
    [[ $(id -u) == 0 ]] || die "missing: $*; install with: sudo apt-get install $*"
    say "Installing Debian packages: $*"
    apt_install "$@" 2>/dev/null || {
        apt-get update -qq >&2
        apt_install "$@"
    }
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o Dpkg::Use-Pty=0 "$@" >&2
}

# install_node_packages: make .node hold what tests/npm pins. Safe to run twice at once.
install_node_packages() {
    local packages=$root/.node lock
    same_packages "$packages" && return
    exec {lock}<"$root"
    flock "$lock"
    if ! same_packages "$packages"; then
        say "Installing Supabase's packages for Node.js"
        rm -rf "$packages"
        mkdir "$packages"
        cp "$root"/tests/npm/package{,-lock}.json "$packages"
        npm ci --silent --no-fund --no-audit --ignore-scripts --prefix "$packages" >&2 || {
            rm -rf "$packages"
            exec {lock}<&-
            return 1
        }
        touch "$packages/.ready"
    fi
    exec {lock}<&-
}

same_packages() {
    [[ -f $1/.ready ]] && cmp -s "$root/tests/npm/package-lock.json" "$1/package-lock.json"
}
