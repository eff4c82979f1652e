# Sourced by run.sh and tools/setup.sh: commands that end where the script that started them is told
# to end. COMMAND_TO_GO_ON is the command that the line at the end names.

# child COMMAND...: run a command; returns its status. Bash hears a signal at once only while it
# waits for a command in the background. Our own commands need not say how to go on.
child() {
  PARENT_SAYS_HOW_TO_GO_ON=1 "$@" &
  wait "$!"
}

finish() {
  local status=$?
  trap '' INT TERM HUP
  kill -TERM $(jobs -p) 2>/dev/null || true
  wait
  if [[ $status == 130 ]]; then
    printf '\nstopped; to go on from here: %s\n' "$COMMAND_TO_GO_ON" >&2
  fi
  exit "$status"
}

trap 'exit 130' INT TERM HUP
trap finish EXIT
