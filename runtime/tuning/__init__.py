"""The fastest way to run a file on this machine: searched for, judged, timed, and remembered beside the file."""
