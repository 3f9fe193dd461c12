"""The registry of experiments, the presets, the published numbers, and the command line."""

import sys

from experiments.process import begin

# Of `python -m experiments.train` this is imported first, while `-m` still stands for the module's
# path: from here on a signal, or a display that breaks, is not the end of the work.
if sys.argv[:1] == ["-m"]:
    begin()
