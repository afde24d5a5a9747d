# Source this from bash or zsh to use the environment that `make setup` made: `. scripts/env.sh`
_root=$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]:-$0}")/.." >/dev/null && pwd)
if [ ! -e "$_root/install/brainos_ros.stamp" ]; then
  echo "$_root is not set up; run: make setup" >&2
  unset _root
  return 1
fi
if [ -z "${ROS_DISTRO:-}" ] || [ -z "${AMENT_PREFIX_PATH:-}" ]; then
  unset ROS_DISTRO
  export AMENT_PREFIX_PATH="$_root/.venv" CMAKE_PREFIX_PATH="$_root/.venv"
fi
. "$_root/.venv/bin/activate"
. "$_root/install/local_setup.${ZSH_VERSION:+z}${BASH_VERSION:+ba}sh"
export PYTHONPATH="$_root:$PYTHONPATH"
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
export PYTHONUNBUFFERED=1
unset _root
