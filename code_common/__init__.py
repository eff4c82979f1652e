"""What both stages share, or what reads their results. From bottom to top:

errors, old_runs, config, arrays    errors in one line, names of older versions, the command line
files, learning, reporting          rooms: disk; networks and training; what a person looks at
options, inference                  the common options; networks on images of any size
launch, steps, estimate             a script's start, the steps of a run, how long they take
"""
