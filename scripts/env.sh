# Source this to use the environment that `make setup` made: `. scripts/env.sh`
_root=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)
if [ -z "${ROS_DISTRO:-}" ]; then
  export AMENT_PREFIX_PATH="$_root/.venv" CMAKE_PREFIX_PATH="$_root/.venv"
fi
. "$_root/.venv/bin/activate"
. "$_root/install/local_setup.bash"
export PYTHONPATH="$_root:$PYTHONPATH"
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
export PYTHONUNBUFFERED=1
unset _root
