# The Python environments of the programs that we compare with: PyTorch, transformers and PEFT in .venv/parity, llama.cpp in
# .venv/llama. Sourced by scripts/parity and scripts/bench.
#
# .venv/parity needs Python >= 3.11 with venv and pip, takes about 6 GB and is made on first use. PARITY_PYTHON=path names an
# interpreter that already has scripts/parity-requirements.txt. Needs a function `fail`.

py() { # the one with the requirements
    if [ -n "${PARITY_PYTHON:-}" ]; then "$PARITY_PYTHON" "$@"; else .venv/parity/bin/python "$@"; fi
}

make_venv() {
    [ -z "${PARITY_PYTHON:-}" ] || return 0
    if cmp -s scripts/parity-requirements.txt .venv/parity/installed.txt; then return 0; fi
    local base=''
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then base=$candidate; break; fi
    done
    [ -n "$base" ] || fail "needs Python 3.11 or newer (torch 2.15 does); found $(python3 -V 2>&1 || echo none)"
    "$base" -c 'import ensurepip, venv' 2>/dev/null || fail "$base lacks venv or pip (Debian: apt install python3-venv)"
    echo "making .venv/parity (several GB)" >&2
    "$base" -m venv --clear .venv/parity
    .venv/parity/bin/python -m pip install --quiet --disable-pip-version-check -r scripts/parity-requirements.txt
    cp scripts/parity-requirements.txt .venv/parity/installed.txt
}

make_llama_venv() { # llama.cpp from source, so that it is built for this processor; five to ten minutes on 2 cores
    [ ! -e .venv/llama/installed ] || return 0
    echo "building llama.cpp in .venv/llama" >&2
    python3 -m venv --clear .venv/llama
    .venv/llama/bin/pip install --quiet --disable-pip-version-check --no-binary llama-cpp-python llama-cpp-python==0.3.36
    touch .venv/llama/installed
}
