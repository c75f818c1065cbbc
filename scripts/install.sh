#!/bin/sh
# Install this checkout, editable, into a virtual environment: install.sh PYTHON VENV REQUIREMENT.
# Says what it does; safe to repeat. uv is used where it works, because it is many times faster than pip.
set -eu
python=$1 venv=$2 what=$3

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "ownlatent needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2
    exit 2
fi
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "==> creating $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv" || {
        rm -rf "$venv"
        echo "this Python cannot make virtual environments: install its venv module (on Debian python3-venv)" >&2
        exit 2
    }
fi
if [ ! -x "$venv/bin/uv" ]; then
    echo "==> installing the installer (uv)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv || echo "    no uv here: pip will do, only slower"
fi
echo "==> installing $what and what it needs (PyTorch is large: a minute, or several on a slow line)"
# uv does not read pip's settings: hand it the index that pip would ask.
index=$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)
index=${PIP_INDEX_URL:-$index}
[ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
[ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"
if [ -x "$venv/bin/uv" ] && "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" -c constraints.txt -e "$what"; then
    :
else
    "$venv/bin/python" -m pip install --disable-pip-version-check -c constraints.txt -e "$what"
fi
echo "==> installed"
