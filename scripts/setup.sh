#!/usr/bin/env bash
# Sets up everything that the project needs, and says what it installs. Safe to run again: what is there stays.
#   scripts/setup.sh            system packages, .venv, the Python packages, our package with its C++ core
#   scripts/setup.sh fuzz       the system packages of the core and those of make fuzz; no .venv
#   scripts/setup.sh arm64      the system packages of the core and those of make test-arm64; no .venv
# PYTHON=python3.12 chooses another interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

apt_packages=(g++ cmake ninja-build libgtest-dev nlohmann-json3-dev libxxhash-dev libexpected-dev liburing-dev libpcre2-dev libutf8proc-dev)
brew_packages=(cmake ninja googletest nlohmann-json xxhash tl-expected pcre2 utf8proc)
case "${1:-}" in
  "") ;;
  fuzz) apt_packages+=(clang-19 libclang-rt-19-dev) ;;                                    # libFuzzer
  arm64)  # GoogleTest's sources; the libraries that the core links, as that machine has them
    apt_packages+=(g++-aarch64-linux-gnu gcc-aarch64-linux-gnu qemu-user-static googletest libpcre2-dev:arm64 libutf8proc-dev:arm64)
    ;;
  *) die "unknown argument '$1': none, fuzz or arm64" ;;
esac

install_with_apt() {
  local python_path missing=() package
  # An interpreter of the distribution's own needs its headers and venv packages; any other brings them along.
  python_path=$(command -v "${PYTHON:-python3}" || true)
  case "$python_path" in "" | /usr/bin/*) apt_packages+=(python3 python3-dev python3-venv) ;; esac
  for package in "${apt_packages[@]}"; do
    dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing system packages with apt-get: ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo: have an administrator install ${missing[*]}"
    as_root=(sudo)
  fi
  # The index of a fresh machine may be empty or stale, so it is read first.
  case "${missing[*]}" in *:arm64*) "${as_root[@]}" dpkg --add-architecture arm64 ;; esac
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_with_brew() {
  local missing=() package
  for package in "${brew_packages[@]}"; do
    brew list --formula "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing system packages with brew (macOS is written for, not tested): ${missing[*]}"
  brew install "${missing[@]}"
}

if command -v apt-get >/dev/null; then
  install_with_apt
elif [ -n "${1:-}" ]; then
  die "$1 is set up with apt-get only: see the packages in scripts/setup.sh"
elif command -v brew >/dev/null; then
  install_with_brew
else
  die "neither apt-get nor brew here: install a C++20 compiler, CMake 3.25, Ninja, GoogleTest, nlohmann-json, xxHash, tl-expected, then make a .venv and run: pip install -e '.[dev]'"
fi
[ -z "${1:-}" ] || exit 0

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "$python is $("$python" -V 2>&1), and 3.11 or newer is needed: set PYTHON=/path/to/python3.11"
if [ ! -x .venv/bin/python ]; then
  say "creating .venv with $("$python" -V)"
  "$python" -m venv .venv
fi

# The ExecuTorch adapter is compiled against the installed executorch wheel, so that comes before our own package.
requirements=$(.venv/bin/python - <<'PY'
import tomllib, pathlib
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())
print("\n".join(project["build-system"]["requires"] + project["project"]["optional-dependencies"]["executorch"]))
PY
)
say "installing Python packages into .venv (PyTorch, ExecuTorch, transformers and the development tools: about 2 GB)"
# shellcheck disable=SC2086 # one requirement a word
.venv/bin/pip install -q --disable-pip-version-check $requirements
say "building the C++ core and installing edge-runtime into .venv"
.venv/bin/pip install -q --disable-pip-version-check --no-build-isolation -e '.[dev]'
.venv/bin/edge-runtime --version
