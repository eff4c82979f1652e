# Sourced by run.sh and tools/setup.sh: commands that end where the script that started them is told
# to end. COMMAND_TO_GO_ON is the command that the line at the end names. LABEL, where it is not
# empty, stands in front of every line that a command prints.

# child COMMAND...: run a command; returns its status. Bash hears a signal at once only while it
# waits for a command in the background. Our own commands need not say how to go on.
child() {
  if [[ -z "$LABEL" ]]; then
    PARENT_SAYS_HOW_TO_GO_ON=1 "$@" &
  else # the second label holds the pipe to the first one open: both have ended where wait returns
    PARENT_SAYS_HOW_TO_GO_ON=1 "$@" 2> >(label 2) | label 1 &
  fi
  wait "$!"
}

# label FD: copy lines to stdout (1) or stderr (2), each behind LABEL. Of a bar, its last state.
label() {
  local line
  trap '' INT TERM HUP # it ends when nobody writes to it any more
  while IFS= read -r line || [[ -n "$line" ]]; do
    printf '%s%s\n' "$LABEL" "${line##*$'\r'}" >&"$1"
  done
}

finish() {
  local status=$?
  trap '' INT TERM HUP
  kill -TERM $(jobs -p) 2>/dev/null || true
  wait
  if [[ $status == 130 && $BASH_SUBSHELL == 0 ]]; then
    printf '\nstopped; to go on from here: %s\n' "$COMMAND_TO_GO_ON" >&2
  fi
  exit "$status"
}

# A subshell in the background has no traps of its script: it calls this, too.
end_with_children() {
  trap 'exit 130' INT TERM HUP
  trap finish EXIT
}

LABEL=""
end_with_children
