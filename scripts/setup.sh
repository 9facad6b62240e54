# Sourced by scripts/run and scripts/test: makes .venv with the pinned packages, once.
# Leaves the repository root as the working directory; prints one line and exits 1 on failure.

fail() {
    echo "$(basename "$0"): $1" >&2
    exit 1
}

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

install() {
    python=$(find_python)
    [ -n "$python" ] || fail "Python 3.11 or newer is needed and none was found; set PYTHON to one"
    echo "$(basename "$0"): making .venv with the pinned packages (a minute or two)" >&2
    rm -rf .venv
    "$python" -m venv .venv || fail "$python cannot make a virtual environment (Debian: install python3-venv)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 2 -r requirements.txt >.venv/install.log 2>&1 &&
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >>.venv/install.log 2>&1 ||
        fail "installing the packages failed; is there a network? the reason is in .venv/install.log"
    echo "$wanted" >.venv/installed
}

cd "$(dirname "${BASH_SOURCE[0]}")/.." || fail "cannot enter the repository"
# The stamp is written last: an install cut short is done again from the start.
wanted=$(cat requirements.txt pyproject.toml | cksum)
[ "$(cat .venv/installed 2>/dev/null)" = "$wanted" ] || install
