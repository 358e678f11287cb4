# Sourced by the scripts here: children that end with them, whatever ends them.

set -m # a process group for each child, so that its children get the signal, too
child=

run() { # COMMAND…: as if called plainly, but a signal for us does not wait until it has ended
    "$@" </dev/null &
    child=$!
    local code=0
    wait "$child" || code=$?
    child=
    return "$code"
}

stop_child() { # SIGNAL
    [ -z "$child" ] || { kill -s "$1" -- "-$child"; wait "$child"; } 2>/dev/null || true
    exit 130
}

trap 'stop_child INT' INT
trap 'stop_child TERM' TERM HUP
